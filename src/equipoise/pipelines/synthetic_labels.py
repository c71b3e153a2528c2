"""From K samples of each target sentence to pseudo-labels with a calibrated confidence, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.console import say, warn
from equipoise.data.extraction import pairs
from equipoise.errors import UserError
from equipoise.evaluation.pseudo_labels import label_quality
from equipoise.journal import write_json, write_jsonl
from equipoise.metrics.entities import Pair, exact
from equipoise.models.backends.hf import Embedded
from equipoise.models.loading import Loaded
from equipoise.pipelines.sample_files import read_samples
from equipoise.pipelines.sampling import backend_of, draw_samples, sample_inputs
from equipoise.pipelines.synthetic_data import Sources
from equipoise.pipelines.synthetic_settings import SyntheticRecipe
from equipoise.records import Sample, Sentence
from equipoise.signals.calibrators import Calibrator, fit
from equipoise.signals.samples import PseudoLabel, cap_empty, comparable, pseudo_label, signal

Row = dict[str, Any]
LEAST_RIGHT = 0.2  # share of right pseudo-labels, below which a run warns


@dataclass(frozen=True)
class Labelled:
    """A target sentence with its pseudo-label and the calibrated probability that the label is right."""

    sentence: Sentence
    label: tuple[Pair, ...]
    confidence: float


@dataclass(frozen=True)
class Labels:
    """What is trained on, the surest first in no particular order, and the calibrator that made the confidences."""

    rows: list[Labelled]
    calibrator: Calibrator


def draw(
    recipe: SyntheticRecipe, sources: Sources, loaded: Callable[[], Loaded], path: Path, seed: int
) -> list[Sample]:
    """Draw, or go on drawing, K samples of each target sentence of train and dev into the journal at `path`."""
    asked = [*sources.target.train, *sources.target.dev]
    if recipe.labels.samples is not None:
        return _ready(recipe, asked)
    return sample_inputs(
        backend_of(recipe.sampling, recipe.model, loaded),
        asked,
        types=sources.target.types,
        settings=recipe.sampling,
        model_name=recipe.model.path,
        seed=seed,
        journal_path=path,
        resume=True,
        instruction=recipe.data.instruction,
    )


def _by_id(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.id, []).append(sample)
    return found


def _ready(recipe: SyntheticRecipe, asked: Sequence[Sentence]) -> list[Sample]:
    """Samples of a file, of one model."""
    path = Path(str(recipe.labels.samples))
    there = read_samples(path)
    model = recipe.labels.model or (there.models[0] if len(there.models) == 1 else None)
    if model not in there.models:
        raise UserError(
            f"the samples are of {len(there.models)} models: {', '.join(there.models) or 'none'}",
            where=str(path),
            fix="say whose to learn from with labels.model=NAME",
        )
    wanted = {sentence.id for sentence in asked}
    found = [row for row in there.samples if row.model == model and row.id in wanted]
    lacking = len(wanted - {row.id for row in found})
    if lacking:
        raise UserError(
            f"{lacking} of {len(wanted)} sentences have no sample of {model}",
            where=str(path),
            fix="generate the rest with `equipoise generate --resume`",
        )
    return found


def make(recipe: SyntheticRecipe, sources: Sources, samples: Sequence[Sample], place: Path) -> Labels:
    """Turn samples into pseudo-labels, calibrate their confidence on dev, and leave both and their worth in `place`."""
    options = recipe.labels
    by_id = _by_id(samples)
    dev = {s.id: pseudo_label(by_id[s.id], label=options.label) for s in sources.target.dev}
    train = {s.id: pseudo_label(by_id[s.id], label=options.label) for s in sources.target.train}
    sure = _sure(recipe, [*train.values(), *dev.values()])
    right = [exact(dev[s.id].entities, _gold(s)) for s in sources.target.dev]
    calibrator = fit(options.calibrator, sure[len(train) :], right)
    confidence = dict(zip(train, calibrator.apply(sure[: len(train)])))
    kept = set(_kept(recipe, train))
    rows = [
        Labelled(sentence, train[sentence.id].entities, float(confidence[sentence.id]))
        for sentence in sources.target.train
        if sentence.id in kept
    ]
    _leave(recipe, sources, {**train, **dev}, confidence, kept, calibrator, place)
    return Labels(rows, calibrator)


def relabel(
    recipe: SyntheticRecipe,
    sources: Sources,
    loaded: Loaded,
    rows: Sequence[Labelled],
    calibrator: Calibrator,
    seed: int,
) -> tuple[list[tuple[Pair, ...]], list[float]]:
    """Labels and confidences of `rows` by K new samples of the model as it is now; nothing is written."""
    samples = draw_samples(
        Embedded(lambda: loaded, recipe.sampling),
        [row.sentence for row in rows],
        types=sources.target.types,
        settings=recipe.sampling,
        model_name=recipe.model.path,
        seed=seed,
        instruction=recipe.data.instruction,
    )
    by_id = _by_id(samples)
    labels = [pseudo_label(by_id[row.sentence.id], label=recipe.labels.label) for row in rows]
    sure = calibrator.apply(_sure(recipe, labels))
    return [label.entities for label in labels], [float(c) for c in sure]


def _sure(recipe: SyntheticRecipe, labels: Sequence[PseudoLabel]) -> Any:
    """The signal [n], not yet calibrated, and comparable between sentences of few and of many entities."""
    found = signal(labels, recipe.labels.signal)
    return comparable(found, [len(label.entities) for label in labels]) if recipe.labels.comparable else found


def _kept(recipe: SyntheticRecipe, labels: dict[str, PseudoLabel]) -> list[str]:
    capped = cap_empty(list(labels.values()), recipe.labels.max_empty)
    if not capped.kept:
        raise UserError(
            "no target sentence has a pseudo-label to learn from: every answer was empty or could not be read",
            where="labels",
            fix="look at samples.jsonl: is a chat template, an instruction or room (sampling.max_new_tokens) missing?",
        )
    if capped.dropped:
        say(
            f"{len(capped.dropped)} empty pseudo-labels left out: they are at most {recipe.labels.max_empty:.0%} of all"
        )
    if capped.unreadable:
        say(f"{len(capped.unreadable)} sentences left out: none of their answers could be read")
    return [label.id for label in capped.kept]


def _gold(sentence: Sentence) -> tuple[Pair, ...]:
    return pairs(sentence.entities or ())


def _leave(
    recipe: SyntheticRecipe,
    sources: Sources,
    labels: dict[str, PseudoLabel],
    confidence: dict[str, float],
    kept: set[str],
    calibrator: Calibrator,
    place: Path,
) -> None:
    """Write every label with its signals, and, where the right answers are known, what each signal is worth."""
    everyone = [*sources.target.train, *sources.target.dev]
    rows = []
    for sentence in everyone:
        label = labels[sentence.id]
        known = sentence.entities is not None
        rows.append(
            {
                "id": sentence.id,
                "text": sentence.text,
                "entities": [list(pair) for pair in label.entities],
                "gold": [list(pair) for pair in _gold(sentence)] if known else None,
                "signals": label.signals,
                "confidence": float(confidence[sentence.id]) if sentence.id in confidence else None,
                "trained_on": sentence.id in kept,
            }
        )
    write_jsonl(place / "pseudo_labels.jsonl", rows)
    split = "train" if all(s.entities is not None for s in sources.target.train) else "dev"
    measured = getattr(sources.target, split)
    calibrated = {"calibrated": [confidence[s.id] for s in measured]} if split == "train" else None
    quality = label_quality([labels[s.id] for s in measured], [_gold(s) for s in measured], confidence=calibrated)
    account = {
        "split": split,
        "n": len(measured),
        "samples": recipe.sampling.samples,
        "signal": recipe.labels.signal,
        "calibrator": calibrator.to_dict(),
        "empty": sum(label.empty for label in labels.values()) / len(labels),
        "left_out": len(sources.target.train) - len(kept),
        "quality": quality,
    }
    write_json(place / "label_quality.json", account)
    if quality["right"] is not None and quality["right"] < LEAST_RIGHT:
        warn(f"only {quality['right']:.0%} of the pseudo-labels are right: there is little to learn from")
