"""Adaptation to a new domain from a model's own labels: samples, pseudo-labels, arms trained and measured, evidence."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from equipoise.console import say
from equipoise.data.extraction import pairs, prompt
from equipoise.evaluation.extraction import extract, summarise
from equipoise.evaluation.extraction_analysis import analyse, flat_results
from equipoise.journal import Journal, read_journal, write_json
from equipoise.metrics.entities import answer
from equipoise.models.loading import Loaded, load_model, pick_device
from equipoise.models.settings import ModelSettings
from equipoise.models.thinking import without_thinking
from equipoise.pipelines.synthetic_data import Sources, load_sources
from equipoise.pipelines.synthetic_labels import LEAST_RIGHT, Labelled, Labels, draw, make, relabel
from equipoise.pipelines.synthetic_settings import SyntheticRecipe, arm_grpo, arm_sft
from equipoise.records import Example, Message, Sentence
from equipoise.runs import Run
from equipoise.schedules.curriculum import Curriculum
from equipoise.training.best import Best
from equipoise.training.checkpoints import load_weights
from equipoise.training.grpo import Item, train_grpo
from equipoise.training.settings import ObjectiveSettings
from equipoise.training.sft import train

SELECTED = Best("target/f1", higher_is_better=True)  # on dev
Row = dict[str, Any]


@dataclass
class Prepared:
    """Both domains, the pseudo-labels of each seed, and the model that is loaded when it is first asked for."""

    sources: Sources
    labels: dict[int, Labels]
    loaded: Callable[[], Loaded]


def run(recipe: SyntheticRecipe, folder: Path, *, until: str = "end") -> dict[str, Any] | None:
    """Run, or go on with, `recipe` in `folder`: samples, pseudo-labels, every arm and seed, analysis.

    Args:
        until: "samples" or "labels" stop after that stage and return None.

    Raises:
        UserError: the folder holds another run, or an input is at fault.
    """
    sources = load_sources(recipe)
    loaded = cache(lambda: load(recipe, recipe.model))
    if not (folder / "manifest.json").exists():
        loaded()  # one that cannot be loaded must not leave a folder that holds "another run" once that is mended
    device = "several" if recipe.model.device_map is not None else str(pick_device(recipe.model.device))
    Run.open_or_create(folder, recipe, data_hashes=sources.hashes, seed=recipe.seeds[0], device=device)
    write_json(folder / "data.json", _account(sources))
    labels: dict[int, Labels] = {}
    for seed in recipe.seeds if recipe.labels.per_seed else recipe.seeds[:1]:
        place = folder / f"labels-{seed}" if recipe.labels.per_seed else folder
        samples = draw(recipe, sources, loaded, place / "samples.jsonl", seed)
        if until != "samples":
            labels[seed] = make(recipe, sources, samples, place)
    if until in ("samples", "labels"):
        return None
    first = next(iter(labels.values()))
    prepared = Prepared(sources, {seed: labels.get(seed, first) for seed in recipe.seeds}, loaded)
    with Journal(folder / "cells.jsonl", key=lambda row: (row["method"], row["seed"])) as cells:
        done = {(row["method"], row["seed"]) for row in cells.rows}
        todo = [cell for cell in planned(recipe) if cell not in done]
        for number, (name, seed) in enumerate(todo, 1):
            say(f"{name}, seed {seed} ({number} of {len(todo)})")
            cells.append(_run_cell(recipe, prepared, folder, name, seed, last=number == len(todo)))
    return _finish(recipe, folder)


def load(recipe: SyntheticRecipe, model: ModelSettings) -> Loaded:
    """The model with the prompts that samples are drawn for, in training and evaluation too: without thinking."""
    loaded = load_model(model)
    return loaded if recipe.sampling.enable_thinking else without_thinking(loaded)


def planned(recipe: SyntheticRecipe) -> list[tuple[str, int]]:
    """Every arm with every seed; the untrained model, which answers greedily, only once."""
    return [
        (name, seed)
        for name, arm in recipe.arms.items()
        for seed in (recipe.seeds[:1] if arm.method == "zero-shot" else recipe.seeds)
    ]


def cell_folder(folder: Path, name: str, seed: int) -> Path:
    """Where an arm's training with one seed lies."""
    return folder / "cells" / name / f"seed-{seed}"


def measure(recipe: SyntheticRecipe, loaded: Loaded, sources: Sources, split: str = "test") -> list[Row]:
    """Ask for the entities of every labelled sentence of a split, in both domains."""
    rows = []
    for domain in sources.named().values():
        asked: list[Sentence] = [s for s in getattr(domain, split) if s.entities is not None]
        rows += extract(
            loaded,
            asked[: recipe.data.validation] if split == "dev" else asked,
            domain.types,
            instruction=recipe.data.instruction,
            max_new_tokens=recipe.data.max_new_tokens,
            batch_tokens=recipe.data.batch_tokens,
        )
    return rows


def evaluate(recipe: SyntheticRecipe, model: ModelSettings) -> list[Row]:
    """Ask a model for the entities of the recipe's test sentences.

    Raises:
        UserError: the model cannot be loaded, or a domain cannot be read.
    """
    return measure(recipe, load(recipe, model), load_sources(recipe))


# ---- one cell


def _run_cell(recipe: SyntheticRecipe, prepared: Prepared, folder: Path, name: str, seed: int, *, last: bool) -> Row:
    """Train one arm with one seed, ask it the test sentences, and return the row that marks it as done."""
    started = time.perf_counter()
    arm, place = recipe.arms[name], cell_folder(folder, name, seed)
    loaded = prepared.loaded()
    told: Row = {}
    trained = loaded
    if arm.method == "sft":
        trained, told = _sft(recipe, prepared, name, seed, place, keep_base=not last)
    elif arm.method == "grpo":
        trained, told = _grpo(recipe, prepared, name, seed, place, keep_base=not last)
    seconds = time.perf_counter() - started
    rows = measure(recipe, trained, prepared.sources)
    with Journal(folder / "predictions.jsonl", key=_answer_key) as journal:
        known = {_answer_key(row) for row in journal.rows}  # of a cell that was cut off here
        new = [{"method": name, "seed": seed, **row} for row in rows]
        journal.extend(row for row in new if _answer_key(row) not in known)
    return {"method": name, "seed": seed, "seconds": round(seconds, 3), **told}


def _answer_key(row: Row) -> tuple[str, int, str, str]:
    return row["method"], row["seed"], row["domain"], row["id"]


def _sft(
    recipe: SyntheticRecipe, prepared: Prepared, name: str, seed: int, place: Path, *, keep_base: bool
) -> tuple[Loaded, Row]:
    """Plain fine-tuning on all pseudo-labels, sure or not."""
    loaded, types = prepared.loaded(), prepared.sources.target.types
    validate = _validation(recipe, prepared)
    untrained = validate(loaded.model, 0)[SELECTED.metric]
    examples = [
        Example(
            id=row.sentence.id,
            messages=[
                Message(role="user", content=prompt(row.sentence.text, types, recipe.data.instruction)),
                Message(role="assistant", content=answer(row.label)),
            ],
        )
        for row in prepared.labels[seed].rows
    ]
    result = train(
        loaded,
        examples,
        objective=ObjectiveSettings(name="sft"),
        settings=arm_sft(recipe, name),
        folder=place,
        seed=seed,
        validate=validate,
        keep_base=keep_base,
        keep_best={"best": SELECTED},
    )
    told = {"steps": result.steps}
    reached = [row[SELECTED.metric] for row in read_journal(place / "validation.jsonl").rows]
    if recipe.data.select == "best" and max(reached) <= untrained:  # as in GRPO, where step 0 is validated too
        return load(recipe, recipe.model), told
    return replace(loaded, model=_selected(recipe, result.model, place)), told


def _grpo(
    recipe: SyntheticRecipe, prepared: Prepared, name: str, seed: int, place: Path, *, keep_base: bool
) -> tuple[Loaded, Row]:
    """GRPO in the order of the arm's curriculum."""
    loaded, arm, settings = prepared.loaded(), recipe.arms[name], arm_grpo(recipe, name)
    rows = prepared.labels[seed].rows
    targets = [_item(recipe, prepared, row.sentence, row.label, "target") for row in rows]
    replay = _replay(recipe, prepared)
    curriculum = Curriculum(
        arm.curriculum.schedule(),
        [row.confidence for row in rows],
        total_steps=settings.epochs * math.ceil(len(targets) / settings.prompts_per_step),
        batch=settings.prompts_per_step,
        seed=seed,
        replay_size=len(replay),
    )
    result = train_grpo(
        loaded,
        targets,
        replay=replay,
        curriculum=curriculum,
        settings=settings,
        folder=place,
        seed=seed,
        validate=_validation(recipe, prepared),
        held_out=[item.prompt for item in _dev(recipe, prepared)],
        refresh=_refresher(recipe, prepared, seed, rows) if arm.curriculum.dynamic else None,
        keep_base=keep_base,
        keep_best={"best": SELECTED},
    )
    return replace(loaded, model=_selected(recipe, result.model, place)), asdict(result.summary)


def _selected(recipe: SyntheticRecipe, model: Any, place: Path) -> Any:
    """The model that is measured, its weights taken from the best validation where that is what the recipe wants."""
    if recipe.data.select == "best" and (place / "best").is_dir():
        load_weights(model, place / "best")
    return model


def _item(
    recipe: SyntheticRecipe, prepared: Prepared, sentence: Sentence, label: Any, kind: Literal["target", "source"]
) -> Item:
    types = prepared.sources.named()[kind].types
    text = prompt(sentence.text, types, recipe.data.instruction)
    return Item(id=sentence.id, prompt=[Message(role="user", content=text)], label=tuple(label), types=types, kind=kind)


def _replay(recipe: SyntheticRecipe, prepared: Prepared) -> list[Item]:
    """Source sentences with their right answers, mixed in so that the source is not forgotten."""
    known = [s for s in prepared.sources.source.train if s.entities is not None]
    return [_item(recipe, prepared, s, pairs(s.entities or ()), "source") for s in known]


def _dev(recipe: SyntheticRecipe, prepared: Prepared) -> list[Item]:
    """The prompts that forward KL is measured on: of both domains, never trained on."""
    half = max(1, recipe.grpo.forward_kl_inputs // 2)
    return [
        *(_item(recipe, prepared, sentence, (), "target") for sentence in prepared.sources.target.dev[:half]),
        *(_item(recipe, prepared, sentence, (), "source") for sentence in prepared.sources.source.dev[:half]),
    ]


def _refresher(
    recipe: SyntheticRecipe, prepared: Prepared, seed: int, rows: Sequence[Labelled]
) -> Callable[[Any, int], tuple[list[Any], list[float]]]:
    """What a dynamic curriculum calls as a stage begins: the current policy samples, and is labelled, anew."""
    loaded, labels = prepared.loaded(), prepared.labels[seed]

    def refresh(model: Any, step: int) -> tuple[list[Any], list[float]]:
        return relabel(recipe, prepared.sources, replace(loaded, model=model), rows, labels.calibrator, seed + step)

    return refresh


def _validation(recipe: SyntheticRecipe, prepared: Prepared) -> Callable[[Any, int], dict[str, float]]:
    """What training calls at each stage and every so many steps: dev sentences of both domains, greedily."""
    loaded = prepared.loaded()

    def validate(model: Any, step: int) -> dict[str, float]:
        rows = measure(recipe, replace(loaded, model=model), prepared.sources, "dev")
        found = {
            f"{domain}/{name}": value
            for domain in ("target", "source")
            for name, value in summarise([row for row in rows if row["domain"] == domain]).items()
        }
        say(
            f"step {step}: target F1 {found['target/f1']:.3f}, source F1 {found['source/f1']:.3f}, "
            f"readable {found['target/valid']:.0%} (dev)"
        )
        return found

    return validate


def _account(sources: Sources) -> Row:
    return {
        "counts": {
            name: {split: len(getattr(domain, split)) for split in ("train", "dev", "test")}
            for name, domain in sources.named().items()
        },
        "types": {name: list(domain.types) for name, domain in sources.named().items()},
        "dropped": sources.dropped,
        "notes": sources.notes,
    }


def _finish(recipe: SyntheticRecipe, folder: Path) -> dict[str, Any]:
    """Analyse what all arms and seeds left, and write it."""
    rows = read_journal(folder / "predictions.jsonl").rows
    cells = read_journal(folder / "cells.jsonl").rows
    analysis = analyse(rows, primary=recipe.primary) | {"cells": cells, "warnings": _warnings(folder, cells)}
    write_json(folder / "synthetic.json", analysis)
    write_json(folder / "results.json", [row.model_dump() for row in flat_results(rows)])
    return analysis


def _warnings(folder: Path, cells: Sequence[Row]) -> list[str]:
    """What a reader should know before any number: labels hardly ever right, runs that stopped or went far."""
    found = []
    for path in sorted(folder.glob("**/label_quality.json")):
        right = json.loads(path.read_text(encoding="utf-8"))["quality"]["right"]
        if right is not None and right < LEAST_RIGHT:
            found.append(f"only {right:.0%} of the pseudo-labels are right: there is little to learn from")
    for cell in cells:
        name = f"{cell['method']}, seed {cell['seed']}"
        found += [f"{name}, stopped early: {cell['stopped']}"] if cell.get("stopped") else []
        found += [f"{name}: {text}" for text in cell.get("warnings", ())]
    return found
