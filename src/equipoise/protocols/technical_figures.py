"""The figures of the technical report: the report's own panels, laid out as files that stand beside the document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from equipoise.report import frontier, plane, plots
from equipoise.report.arms import Weighting, styles
from equipoise.report.build import shown_weightings
from equipoise.report.frontier import FrontierRun
from equipoise.report.reading import RunData
from equipoise.report.sheet import Key, arm_keys, scale_keys, sheet
from equipoise.report.shock import weight_against_shock
from equipoise.report.svg import INK, MUTED, Panel

FOLDER = "images"
UNTRAINED_KEY: Key = ("×", "#7F7F7F", "untrained")
CONFLICT: Key = ("◆", "#111111", "first token where the answer leaves the model's own")
OTHERS: Key = ("●", "#3d444d", "others")
CURVES = ("updates_weight", "keep_weight", "mean_weight")


@dataclass
class Figures:
    """The files of the figures by their names, as they are drawn."""

    files: dict[str, str] = field(default_factory=dict)

    def add(
        self, name: str, alt: str, panels: Sequence[Panel], *, columns: int = 2, legends: Sequence[Sequence[Key]] = ()
    ) -> str:
        """Keep a figure and return the Markdown that shows it."""
        file = f"report-{name}.svg"
        self.files[file] = sheet(panels, columns=columns, legends=legends)
        return f"![{alt}]({FOLDER}/{file})"


def trade_offs(figures: Figures, key: str, run: RunData) -> list[str]:
    """Correction against what training may harm."""
    arms = styles(run.arms)
    panels = plots.trade_offs(run.analysis or {}, arms)
    if not panels:
        return []
    legend = [*arm_keys(arms), UNTRAINED_KEY]
    return [
        figures.add(f"{key}-trade-off", "Correction against what training may harm", panels, legends=[legend]),
        f"Up is more corrected, right is more kept{plots.drift_note(run.analysis or {})}. Small marks are single "
        "seeds, large ones their mean; bars are the intervals of the table.",
    ]


def mechanism(figures: Figures, key: str, run: RunData) -> list[str]:
    """Where the training tokens lie before training, and the weight that every arm gives to each place."""
    if not run.tokens:
        return []
    arms = styles(run.arms)
    weightings = shown_weightings(run, arms)
    vocab = (run.detection or {}).get("vocab_size")
    conflicts = sum(bool(row.get("is_conflict")) for row in run.tokens)
    parts = [
        f"{len(run.tokens)} tokens of the updates as the untrained model reads them; at {conflicts} of them an answer "
        "first leaves what the model would have said.",
        figures.add(
            f"{key}-plane",
            "Entropy and probability of the training tokens, and the weight that each arm gives them",
            plane.planes(run.tokens, arms, weightings, vocab),
            columns=3,
            legends=[[("weight", INK, ""), *scale_keys(plane.weight_scale())], [CONFLICT, OTHERS]],
        ),
        "Colour: the weight that the arm gives a token in that place. Left axis nll, right axis the probability of the "
        "token. " + _lines(weightings, vocab),
    ]
    shock = weight_against_shock(run.tokens, arms, weightings)
    if shock:
        moving = " Dashed: a threshold that moves with training, drawn where these tokens put it."
        parts += [
            figures.add(f"{key}-shock", "Weight of a token against its shock", [shock], legends=[[CONFLICT], [OTHERS]]),
            "Points: the same tokens, at the weight h that each arm gives them below its threshold. Lines: the weight "
            "above it, from the jump at tau to the bar where the clamp ends the rise. Dotted across: a weight of 1."
            + (moving if any(weighting.moves for weighting in weightings.values()) else ""),
        ]
    return parts


def _lines(weightings: Mapping[str, Weighting], vocab: int | None) -> str:
    if not any(weighting.shock_line for weighting in weightings.values()):
        return ""
    dotted = " Dotted: nll = H, a token as surprising as the model itself expects." if vocab else ""
    return f"Line: the shock threshold; what lies above it counts as shocked.{dotted}"


def curves(figures: Figures, key: str, run: RunData) -> list[str]:
    """What the arms weighed while they trained."""
    named = styles([*run.arms, *(name for name in run.metrics if name not in run.arms)])
    arms = {name: arm for name, arm in named.items() if name in run.metrics}
    panels = plots.learning_curves(run.metrics, arms, CURVES)
    if not panels:
        return []
    return [
        figures.add(f"{key}-weights", "What the arms weighed while training", panels, legends=[arm_keys(arms)]),
        "Line: mean over seeds. Band: from the lowest to the highest seed.",
    ]


def detection(figures: Figures, run: RunData) -> str:
    """How well the shock ratio finds the conflicts."""
    keys: list[Key] = [("—", "#0072B2", "shock"), ("--", "#D55E00", "nll alone"), ("··", MUTED, "chance")]
    panels = plots.detection_panels(run.detection or {})
    over_tau: list[Key] = [("—", INK, "precision over tau"), ("--", INK, "recall over tau")]
    return figures.add("detection", "Precision and recall of the shock ratio", panels, legends=[over_tau, keys])


def fronts(figures: Figures, key: str, found: FrontierRun) -> str:
    """Every setting of a frontier and each arm's front."""
    return figures.add(
        f"{key}-fronts",
        "Correction against what is kept, and each arm's front",
        [frontier.plane(found, task) for task in found.analysis["kept"]],
        legends=[[*arm_keys(found.arms), UNTRAINED_KEY]],
    )
