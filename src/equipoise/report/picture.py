"""The one picture of a comparison, as a PNG for a README: what correction costs, and where the objective listens."""

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from equipoise.errors import UserError
from equipoise.journal import write_atomic
from equipoise.report.arms import styles, weighting_of
from equipoise.report.plane import draw_plane, plane_limits, weight_scale
from equipoise.report.plots import draw_trade_off
from equipoise.report.reading import RunData, read_run
from equipoise.report.svg import MUTED, RC

WIDTH, HEIGHT, DPI = 8.0, 4.1, 200  # inches: 1,600 pixels wide, text of 11 pt readable at half of that


def build_picture(run_dir: Path, out_png: Path, *, against: str = "locality", arm: str = "r-eaft") -> Path:
    """Draw correction against one task that training may harm, beside the plane of one arm, and return the path.

    Args:
        against: the task on the x axis; retention where the run has no such task.
        arm: whose weights colour the plane.

    Raises:
        UserError: the run has no analysis with corrections, or no tokens.
    """
    run = read_run(Path(run_dir))
    if not run.analysis or "correction" not in run.analysis.get("tasks", []) or not run.tokens:
        raise UserError("the picture needs analysis.json and tokens.jsonl of a finished protocol", where=str(run_dir))
    with matplotlib.rc_context(RC):
        figure = _draw(run, against if against in run.analysis["tasks"] else "retention", arm)
        target = Path(out_png)
        write_atomic(target, _png(figure))
    return target


def _draw(run: RunData, task: str, arm: str) -> Figure:
    analysis = run.analysis or {}
    arms = styles(run.arms)
    shown = arms.get(arm) or next(iter(arms.values()))
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    left = figure.add_axes((0.075, 0.145, 0.40, 0.61))
    draw_trade_off(left, analysis, arms, task)
    left.set_xlabel({"locality": "related facts kept", "retention": "skills kept"}.get(task, task))
    left.set_title("facts corrected", color=MUTED, fontweight="normal", fontsize=11)
    handles = [
        left.plot([], [], style.marker, color=style.colour, ms=7, ls="none", label=style.label)[0]
        for style in arms.values()
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.02, 0.835), ncols=3, frameon=False, fontsize=10.5,
        handletextpad=0.2, columnspacing=1.1, borderaxespad=0,
    )  # fmt: skip
    if (analysis.get("untrained") or {}).get(task) is not None:
        left.annotate(
            "untrained", (analysis["untrained"][task], analysis["untrained"].get("correction", 0)), xytext=(-8, 0),
            textcoords="offset points", ha="right", va="center", color=MUTED, fontsize=10,
        )  # fmt: skip
    right = figure.add_axes((0.585, 0.145, 0.40, 0.61))
    vocab = (run.detection or {}).get("vocab_size")
    draw_plane(right, run.tokens, shown, weighting_of(run.config, shown.name), plane_limits(run.tokens), vocab)
    right.set_title("")
    right.set_ylabel("nll (how wrong) →")
    right.set_xlabel("entropy h (how unsure) →")
    figure.text(0.585, 0.925, f"a token's weight in {shown.label}", fontsize=11.5, fontweight="bold")
    note = "◆ first token where the\nanswer leaves the model's own"
    right.text(0.98, 0.03, note, transform=right.transAxes, ha="right", va="bottom", fontsize=9, color="#111111")
    for i, (label, colour) in enumerate(weight_scale()):
        x = 0.585 + i * 0.4 / 7
        figure.patches.append(Rectangle((x, 0.85), 0.4 / 7, 0.03, transform=figure.transFigure, fc=colour, ec="none"))
        figure.text(x + 0.2 / 7, 0.80, label, ha="center", fontsize=9, color=MUTED)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
