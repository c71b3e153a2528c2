"""What was published beside what was measured here, with the differences in set-up said first. Torch-free."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from equipoise.console import say, table
from equipoise.errors import UserError
from equipoise.journal import write_atomic
from equipoise.metrics.statistics import mean_interval
from equipoise.protocols.definitions import PROTOCOLS
from equipoise.protocols.markdown import markdown_table
from equipoise.protocols.wording import bounded, count, difference, interval, number
from equipoise.runs import Run

COLUMNS = ["arm", "published", "measured", "difference"]
LEVEL = 0.05
Row = dict[str, Any]


def published() -> dict[str, Any]:
    """The published tables: by letter of the protocol and task, a value an arm or one for each seed."""
    return json.loads(files("equipoise.protocols").joinpath("published.json").read_text(encoding="utf-8"))


def compare_published(runs: Sequence[Path], out: Path | None = None) -> str:
    """Print the published tables beside the analyses of `runs`; return them as Markdown, and write that to `out`.

    Raises:
        UserError: a folder is no finished run of a protocol.
    """
    told = published()
    parts = ["# Published and measured", told["source"] + "."]
    for path in runs:
        analysis, config = _read(path)
        letter = analysis["protocol"]
        theirs, title = told[letter], PROTOCOLS[letter].title
        rows = compared(analysis, theirs)
        note = f"{setup(config)} Published: {theirs['note']}."
        for task in dict.fromkeys(row["task"] for row in rows):
            cells = [cells_of(row) for row in rows if row["task"] == task]
            table(f"{title}, {task}", COLUMNS, cells)
            parts += [f"## {title}, {task}", markdown_table(COLUMNS, cells)]
        say(note)
        parts.append(note)
    text = "\n\n".join(parts) + "\n"
    if out is not None:
        write_atomic(out, text)
    return text


def compared(analysis: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Row]:
    """One row for each published task and arm: both means with their intervals, where there are seeds for one.

    `measured` is None where the run has no such arm or task.
    """
    rows = []
    for task, by_arm in theirs.items():
        if not isinstance(by_arm, dict):
            continue
        for arm, values in by_arm.items():
            ours = analysis["arms"].get(arm, {}).get(task)
            mean = mean_interval(values if isinstance(values, list) else [values])
            row = {"task": task, "arm": arm, "published": mean.mean, "published_ci": mean.ci, "measured": None}
            rows.append(row | ({} if ours is None else {"measured": ours["mean"], "measured_ci": ours["ci"]}))
    return rows


@dataclass(frozen=True)
class Orders:
    """Pairs of arms as a published table and an analysis order them: `contrary` in sentences, else how many."""

    alike: int
    contrary: list[str]
    open: int
    untested: int

    @property
    def pairs(self) -> int:
        return self.alike + len(self.contrary) + self.open + self.untested

    @property
    def sentence(self) -> str:
        said = f"Of {count(self.pairs, 'pair')} of arms in both tables, {self.alike} came out in the published order, "
        said += f"{len(self.contrary)} contrary to it, {self.open} were not told apart here"
        return said + (f", and {self.untested} could not be tested." if self.untested else ".")


def orders(analysis: Mapping[str, Any], theirs: Mapping[str, Any]) -> Orders:
    """Hold the published order of every pair of arms against the analysis's own test of that pair.

    A difference is told where its Holm-adjusted p is below 0.05, and cannot be tested where nothing varies over seeds.
    A pair whose published values are equal has no order: it counts only as contrary, where a difference is told here.
    """
    means = {(row["task"], row["arm"]): row["published"] for row in compared(analysis, theirs)}
    alike, contrary, untold, untested = 0, [], 0, 0
    for row in analysis["comparisons"]:
        a, b = (means.get((row["task"], row[side])) for side in ("a", "b"))
        if a is None or b is None:
            continue
        told = row["p_holm"] is not None and row["p_holm"] < LEVEL
        if told and (a - b) * row["estimate"] <= 0:
            both = f"{number(a, share=True)} against {number(b, share=True)}"
            contrary.append(f"{row['task']}: published, {row['a']} {both} for {row['b']}. Here, {row['sentence']}")
        elif a != b:
            alike += told
            untested += row["p_holm"] is None
            untold += row["p_holm"] is not None and not told
    return Orders(alike, contrary, untold, untested)


def setup(config: Mapping[str, Any]) -> str:
    """Say in what the run's set-up differs from the published one."""
    training, seeds = config.get("training") or {}, config.get("seeds") or []
    tuned = "all weights" if training.get("lora", {}) is None else "LoRA"
    arms = config.get("arms") or {}
    own_sum = any((arm or {}).get("normalize") == "weights" for arm in arms.values())
    model = (config.get("model") or {}).get("path", "testbed")
    divisor = "the sum of weights" if own_sum else "the number of tokens"
    return (
        f"Measured: model {model}, {training.get('epochs', 3)} epochs at {training.get('learning_rate', 2e-5):g}, "
        f"{tuned}, {count(len(seeds), 'seed')}, loss divided by {divisor}, other facts than the published "
        "ones, strict scoring; so levels are not comparable, the order of the arms is."
    )


def _read(path: Path) -> tuple[Row, Row]:
    Run.open(path)
    from equipoise.config import load_yaml

    config = load_yaml(path / "config.yaml")
    if config.get("protocol") not in published():
        raise UserError(
            "this is no run of a protocol with published numbers to compare with",
            where=str(path),
            fix=f"give runs of protocol {', '.join(PROTOCOLS)}; `equipoise report {path}` shows this one",
        )
    file = path / "analysis.json"
    if not file.is_file():
        raise UserError("this run has no analysis", where=str(file), fix="finish it: the same call goes on with it")
    return json.loads(file.read_text(encoding="utf-8")), config


def cells_of(row: Row) -> list[str]:
    """Write one row of `compared` as the cells of `COLUMNS`."""
    shown = number(row["published"], share=True) + interval(bounded(row["published_ci"]), share=True)
    if row["measured"] is None:
        return [row["arm"], shown, "not measured", ""]
    ours = number(row["measured"], share=True) + interval(bounded(row["measured_ci"]), share=True)
    return [row["arm"], shown, ours, difference(row["measured"] - row["published"], share=True)]
