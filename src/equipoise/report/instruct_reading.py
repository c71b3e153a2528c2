"""The run directory of an instruct run as its page sees it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.records import INSTRUCT_STAGES
from equipoise.report.page import mapping, sequence
from equipoise.report.reading import Curves, Rows, RunData, open_run, read_curves, read_json, read_rows

UNTRAINED, SFT, DPO = INSTRUCT_STAGES
DROPPED = "clean/dropped.jsonl"
LABELS = {UNTRAINED: "untrained", SFT: "SFT", DPO: "DPO"}


@dataclass
class InstructRun:
    """What the run left. A part that could not be read is empty, and `run.problems` says why.

    Attributes:
        analysis: instruct.json.
        data: data.json, what cleaning did and what went into the splits.
        dropped: rows that cleaning left out of the training data.
        cells: one row for each stage and seed that finished.
        answers: test questions as every stage answered them.
        pairs: test pairs with the log-probabilities of both sides.
        sanity: prompts for people to read; None where the run asked none.
        steps: rows of metrics.jsonl, by stage and seed.
        validation: rows of validation.jsonl, by stage and seed.
    """

    run: RunData
    analysis: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    dropped: Rows = field(default_factory=list)
    cells: Rows = field(default_factory=list)
    answers: Rows = field(default_factory=list)
    pairs: Rows = field(default_factory=list)
    sanity: Rows | None = None
    steps: Curves = field(default_factory=dict)
    validation: Curves = field(default_factory=dict)

    @property
    def stages(self) -> list[str]:
        """Name the stages that were measured, as the analysis has them, else as the recipe plans them."""
        named = [str(name) for name in sequence(self.analysis.get("stages"))]
        planned = [UNTRAINED, *(name for name in INSTRUCT_STAGES[1:] if self.run.config.get(name) is not None)]
        return [name for name in named if name in INSTRUCT_STAGES] or planned

    @property
    def last(self) -> str:
        """Name the stage that the run ends with."""
        return self.stages[-1]

    @property
    def seeds(self) -> list[Any]:
        """Name the seeds, as the analysis has them, else the recipe."""
        return sequence(self.analysis.get("seeds")) or sequence(self.run.config.get("seeds"))

    @property
    def has_pairs(self) -> bool:
        """Tell whether the run has pairs to speak of; where the account of its data is missing, it may have."""
        counts = mapping(self.data.get("counts"))
        planned = not counts or any(mapping(split).get("pairs") for split in counts.values())
        return bool(planned or self.pairs)


def read_instruct_run(path: Path) -> InstructRun:
    """Read what the run left; nothing in it is changed.

    Raises:
        UserError: there is no such folder, or it holds no run.
    """
    run = open_run(path)
    found = InstructRun(run)
    found.analysis = read_json(run, "instruct.json", dict) or {}
    found.data = read_json(run, "data.json", dict) or {}
    found.dropped = read_rows(run, DROPPED)
    found.cells = read_rows(run, "cells.jsonl")
    found.answers = read_rows(run, "predictions.jsonl")
    found.pairs = read_rows(run, "pairs.jsonl")
    if (run.path / "sanity.jsonl").exists():
        found.sanity = read_rows(run, "sanity.jsonl")
    found.steps = read_curves(run, "metrics.jsonl", INSTRUCT_STAGES)
    found.validation = read_curves(run, "validation.jsonl", INSTRUCT_STAGES)
    return found
