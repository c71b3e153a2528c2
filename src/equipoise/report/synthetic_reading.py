"""The run directory of an adaptation to a new domain as its page sees it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.report.page import mapping, sequence
from equipoise.report.reading import Curves, Rows, RunData, by_seed, open_run, read_curves, read_json, read_rows

UNTRAINED = "zero-shot"


@dataclass
class SyntheticRun:
    """What the run left. A part that could not be read is empty, and `run.problems` says why.

    Attributes:
        analysis: synthetic.json.
        data: data.json, what went into the splits.
        quality: label_quality.json; of each seed, where each drew samples of its own.
        labels: pseudo_labels.jsonl, of the first seed that has it.
        predictions: test sentences as every arm answered them.
        steps: rows of metrics.jsonl.
        validation: rows of validation.jsonl.
    """

    run: RunData
    analysis: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: Rows = field(default_factory=list)
    predictions: Rows = field(default_factory=list)
    steps: Curves = field(default_factory=dict)
    validation: Curves = field(default_factory=dict)

    @property
    def arms(self) -> list[str]:
        """Name the arms, as the analysis has them, else the recipe."""
        named = sequence(self.analysis.get("arms")) or list(mapping(self.run.config.get("arms")))
        return [str(name) for name in named]

    @property
    def trained(self) -> list[str]:
        """Name the arms that learn something."""
        return [name for name in self.arms if name != UNTRAINED]

    @property
    def primary(self) -> str:
        """Name the arm that was named beforehand."""
        return str(self.analysis.get("primary") or self.run.config.get("primary") or "")

    @property
    def seeds(self) -> list[Any]:
        """Name the seeds, as the analysis has them, else the recipe."""
        return sequence(self.analysis.get("seeds")) or sequence(self.run.config.get("seeds"))

    @property
    def first_quality(self) -> dict[str, Any]:
        """Give the account of the labels that `labels` holds."""
        return next(iter(self.quality.values()), {})


def read_synthetic_run(path: Path) -> SyntheticRun:
    """Read what the run left; nothing in it is changed.

    Raises:
        UserError: there is no such folder, or it holds no run.
    """
    run = open_run(path)
    found = SyntheticRun(run)
    found.analysis = read_json(run, "synthetic.json", dict) or {}
    found.data = read_json(run, "data.json", dict) or {}
    found.predictions = read_rows(run, "predictions.jsonl")
    found.steps = read_curves(run, "metrics.jsonl", found.arms)
    found.validation = read_curves(run, "validation.jsonl", found.arms)
    places = [p.parent for p in by_seed(run.path.glob("labels-*/label_quality.json"))] or [run.path]
    for place in places:
        quality = read_json(run, (place / "label_quality.json").relative_to(run.path).as_posix(), dict)
        if quality:
            found.quality[place.name.removeprefix("labels-") if place != run.path else ""] = quality
    found.labels = read_rows(run, (places[0] / "pseudo_labels.jsonl").relative_to(run.path).as_posix())
    return found
