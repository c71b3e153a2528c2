"""From raw instructions to an aligned model: clean, SFT, DPO, and what each stage changed; resumable at any point."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from equipoise.console import Bar, progress, say
from equipoise.data.formatting import render_prompt
from equipoise.errors import UserError
from equipoise.evaluation.answers import answer_losses, answer_rows
from equipoise.evaluation.instruct_analysis import analyse, flat_results
from equipoise.evaluation.preferences import score_pairs, summarise_pairs
from equipoise.evaluation.sanity import load_suite, run_suite
from equipoise.journal import Journal, read_journal, write_json
from equipoise.models.loading import Loaded, load_model, pick_device
from equipoise.models.settings import ModelSettings
from equipoise.objectives.weighting import weighting
from equipoise.pipelines.instruct_data import HELD_OUT, Sources, Split, prepare, test_split
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.pipelines.trained import POINTER, trained_model
from equipoise.records import INSTRUCT_STAGES, Message
from equipoise.runs import Run
from equipoise.training.assembly import check_settings, pick_precision
from equipoise.training.checkpoints import load_weights
from equipoise.training.dpo import train_dpo
from equipoise.training.sft import train

UNTRAINED, SFT, DPO = INSTRUCT_STAGES
BEST = "best_loss"  # what training keeps of the lowest mean validation loss
Row = dict[str, Any]
OnStep = Callable[[Row], None]


def run(recipe: InstructRecipe, folder: Path, *, until: str = "end") -> Row | None:
    """Run, or go on with, `recipe` in `folder`: clean data, every seed's stages, analysis.

    A stage that finished is not run again; one that was cut off goes on from its last checkpoint.

    Args:
        until: "clean", "sft" or "dpo" stop after that stage (of every seed) and return None.

    Raises:
        UserError: the folder holds another run, or an input is at fault.
    """
    if recipe.evaluation.sanity is not None:
        load_suite(recipe.evaluation.sanity)  # a mistake in it is found before anything is trained
    loaded = cache(lambda: load_model(recipe.model))
    fresh = not (folder / "manifest.json").exists()
    if fresh:  # a mistake must not leave a folder that holds "another run" once it is mended
        check(recipe, loaded())
    device = "several" if recipe.model.device_map is not None else str(pick_device(recipe.model.device))
    Run.open_or_create(folder, recipe, data_hashes={}, seed=recipe.seeds[0], device=device)
    try:
        sources = prepare(recipe, folder)
    except UserError:
        if fresh:
            _remove(folder)
        raise
    write_json(folder / "data.json", _account(sources))
    if until == "clean":
        return None
    stages = [stage for stage, settings in ((SFT, recipe.sft), (DPO, recipe.dpo)) if settings is not None]
    with Journal(folder / "cells.jsonl", key=lambda row: (row["method"], row["seed"])) as cells:
        done = {(row["method"], row["seed"]) for row in cells.rows}
        if (UNTRAINED, recipe.seeds[0]) not in done:
            _measure(recipe, loaded(), sources, folder, UNTRAINED, recipe.seeds[0])
            cells.append({"method": UNTRAINED, "seed": recipe.seeds[0], "seconds": 0.0})
        loaded.cache_clear()  # one model in memory at a time: each stage loads its own
        for seed in recipe.seeds:
            for stage in stages:
                if (stage, seed) not in done:
                    cells.append(_run_stage(recipe, sources, folder, stage, seed))
                    done.add((stage, seed))
                if seed == recipe.seeds[0]:
                    last = [name for name in stages if (name, seed) in done][-1]  # also where `until` names an earlier
                    chosen = _chosen(recipe, stage_folder(folder, last, seed))
                    write_json(folder / POINTER, {"model": chosen.relative_to(folder).as_posix()})
                if stage == until:
                    break
    return None if until in stages else _finish(recipe, folder)


def check(recipe: InstructRecipe, loaded: Loaded) -> None:
    """Find a mistake that only the model and the libraries can tell before anything is cleaned or trained.

    Raises:
        UserError: the model has no chat template, or objective, sft or dpo name what there is not.
    """
    render_prompt(loaded.tokenizer, [Message(role="user", content="?")])
    weighting(recipe.objective.name, **recipe.objective.params)
    for settings in (recipe.sft, recipe.dpo):
        if settings is not None:
            pick_precision(loaded.model, settings)
            check_settings(loaded.model, settings)


def _remove(folder: Path) -> None:
    """Take away what a run left that came to no data; the manifest late, so that it is a run until then."""
    for name in ("raw", HELD_OUT, "clean"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("manifest.json", "config.yaml"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # somebody else's hidden files
        folder.rmdir()


def stage_folder(folder: Path, stage: str, seed: int) -> Path:
    """Where a stage's training with one seed lies."""
    return folder / "cells" / stage / f"seed-{seed}"


# ---- stages


def _run_stage(recipe: InstructRecipe, sources: Sources, folder: Path, stage: str, seed: int) -> Row:
    """Train one stage with one seed from what the stage before left on disk, measure it, and return its row."""
    place = stage_folder(folder, stage, seed)
    before = stage_folder(folder, SFT, seed) if stage == DPO and recipe.sft is not None else None
    loaded = load_model(recipe.model if before is None else _left_in(recipe, before))
    started = time.perf_counter()
    do = _sft if stage == SFT else _dpo
    with progress(step_counts(recipe, sources)[stage], f"{stage}, seed {seed}") as bar:
        trained, told = do(recipe, sources, loaded, place, seed, _follow(bar))
    seconds = time.perf_counter() - started
    _measure(recipe, trained, sources, folder, stage, seed)
    return {"method": stage, "seed": seed, "seconds": round(seconds, 3), **told}


def _left_in(recipe: InstructRecipe, place: Path) -> ModelSettings:
    """The model that a finished stage left, as the recipe selects it."""
    return trained_model(str(_chosen(recipe, place)), base=recipe.model)


def _chosen(recipe: InstructRecipe, place: Path) -> Path:
    best = place / BEST
    return best if recipe.select == "best" and best.is_dir() else place / "final"


def step_counts(recipe: InstructRecipe, sources: Sources) -> dict[str, int]:
    """Optimizer steps of each stage, if no row turns out to be too long."""
    stages = ((SFT, recipe.sft, sources.train.examples), (DPO, recipe.dpo, sources.train.pairs))
    return {
        name: settings.epochs * math.ceil(len(rows) / (settings.batch_size * settings.gradient_accumulation))
        for name, settings, rows in stages
        if settings is not None
    }


def _follow(bar: Bar) -> OnStep:
    """Bring a bar to the step that a row of metrics is of, which after a resume is not the first."""
    seen = 0

    def on_step(row: Row) -> None:
        nonlocal seen
        bar.advance(row["step"] - seen)
        seen = row["step"]

    return on_step


def _sft(
    recipe: InstructRecipe, sources: Sources, loaded: Loaded, place: Path, seed: int, on_step: OnStep
) -> tuple[Loaded, Row]:
    assert recipe.sft is not None
    held_out = sources.validation.examples[: recipe.evaluation.validation]
    result = train(
        loaded,
        sources.train.examples,
        objective=recipe.objective,
        settings=recipe.sft,
        folder=place,
        seed=seed,
        on_step=on_step,
        example_losses=_losses(loaded, held_out, recipe.sft.max_length) if held_out else None,
    )
    if _chosen(recipe, place).name == BEST:
        load_weights(result.model, place / BEST)
    told = {"steps": result.steps, "dropped": len(result.dropped), "anomalies": result.anomalies}
    if result.stopped is not None:
        told |= {"stopped": result.stopped.sentence}
    return replace(loaded, model=result.model), told


def _dpo(
    recipe: InstructRecipe, sources: Sources, loaded: Loaded, place: Path, seed: int, on_step: OnStep
) -> tuple[Loaded, Row]:
    assert recipe.dpo is not None
    held_out = sources.validation.pairs[: recipe.evaluation.validation]
    result = train_dpo(
        loaded,
        sources.train.pairs,
        settings=recipe.dpo,
        folder=place,
        seed=seed,
        on_step=on_step,
        validate=_pair_validation(recipe, loaded, held_out) if held_out else None,
    )
    told = {"steps": result.steps, "dropped": len(result.dropped), "anomalies": result.anomalies}
    return replace(loaded, model=result.model), told


def _losses(loaded: Loaded, held_out: Sequence[Any], max_length: int) -> Callable[[Any, int], list[float]]:
    """What training compares its models by: the mean nll of each validation answer."""

    def losses(model: Any, step: int) -> list[float]:
        found = answer_losses(replace(loaded, model=model), held_out, max_length=max_length)
        return [nll / tokens for nll, tokens in found if tokens]

    return losses


def _pair_validation(
    recipe: InstructRecipe, loaded: Loaded, held_out: Sequence[Any]
) -> Callable[[Any, int], dict[str, float]]:
    def validate(model: Any, step: int) -> dict[str, float]:
        assert recipe.dpo is not None
        scores = score_pairs(
            replace(loaded, model=model),
            held_out,
            max_length=recipe.dpo.max_length,
            batch_tokens=recipe.evaluation.batch_tokens,
        )
        return summarise_pairs(scores)

    return validate


# ---- measuring


def measure(recipe: InstructRecipe, loaded: Loaded, test: Split) -> tuple[list[Row], list[Row]]:
    """Ask a model every test instruction, and score every test pair.

    Returns:
        Rows of answers and rows of pairs, each with `group`, and with `part`, what `evaluation.by` names.
    """
    options, limit = recipe.evaluation, _max_length(recipe)
    answers = answer_rows(
        loaded,
        test.examples,
        max_new_tokens=options.max_new_tokens,
        max_length=limit,
        batch_tokens=options.batch_tokens,
    )
    scores = score_pairs(loaded, test.pairs, max_length=limit, batch_tokens=options.batch_tokens) if test.pairs else []
    metas = {pair.id: pair.meta for pair in test.pairs}
    return (
        [_placed(recipe, row, example.meta) for row, example in zip(answers, test.examples, strict=True)],
        [_placed(recipe, asdict(score), metas[score.id]) for score in scores],
    )


def evaluate(
    recipe: InstructRecipe, model: ModelSettings, scratch: Path, *, run: Path | None
) -> tuple[list[Row], list[Row]]:
    """Measure a model, which may lie in a `run`, on the test rows of a recipe.

    Args:
        scratch: an empty folder for data that the run does not hold clean already.

    Raises:
        UserError: the model or the data cannot be loaded, no row is held out, or the model was trained on one that is.
    """
    test = test_split(recipe, scratch, run)
    return measure(recipe, load_model(model), test)


def _placed(recipe: InstructRecipe, row: Row, meta: Row) -> Row:
    by = recipe.evaluation.by
    part = {} if by is None else {"part": str(meta.get(by))}
    return {**row, "group": str(meta.get("group", row["id"])), **part}


def _max_length(recipe: InstructRecipe) -> int:
    return max(settings.max_length for settings in (recipe.sft, recipe.dpo) if settings is not None)


def _measure(recipe: InstructRecipe, loaded: Loaded, sources: Sources, folder: Path, stage: str, seed: int) -> None:
    """Journal what a stage's model says; rows of a start that was cut off here are there already."""
    test = sources.test
    say(f"{stage}: measuring {len(test.examples):,} answers and {len(test.pairs):,} pairs")
    for name, rows in zip(("predictions.jsonl", "pairs.jsonl"), measure(recipe, loaded, test), strict=True):
        with Journal(folder / name, key=_key) as journal:
            known = {_key(row) for row in journal.rows}
            new = [{"method": stage, "seed": seed, **row} for row in rows]
            journal.extend(row for row in new if _key(row) not in known)
    if recipe.evaluation.sanity is not None and seed == recipe.seeds[0]:
        _ask_sanity(recipe, loaded, folder, stage)


def _ask_sanity(recipe: InstructRecipe, loaded: Loaded, folder: Path, stage: str) -> None:
    """A few answers for people to read, of each stage's first seed."""
    options = recipe.evaluation
    answers = run_suite(
        loaded,
        load_suite(options.sanity or ""),
        model=stage,
        max_new_tokens=options.max_new_tokens,
        batch_tokens=options.batch_tokens,
    )
    with Journal(folder / "sanity.jsonl", key=lambda row: (row["method"], row["id"])) as journal:
        known = {row["id"] for row in journal.rows if row["method"] == stage}
        journal.extend(
            {"method": stage, "kind": "open" if row.passed is None else "checkable", **row.model_dump()}
            for row in answers
            if row.id not in known
        )


def _key(row: Row) -> tuple[str, int, str]:
    return row["method"], row["seed"], row["id"]


def _finish(recipe: InstructRecipe, folder: Path) -> Row:
    """Analyse what all stages and seeds left, and write it."""
    answers, pairs = (read_journal(folder / name).rows for name in ("predictions.jsonl", "pairs.jsonl"))
    analysis = analyse(answers, pairs, by=recipe.evaluation.by)
    analysis["cells"] = read_journal(folder / "cells.jsonl").rows
    write_json(folder / "instruct.json", analysis)
    write_json(folder / "results.json", [row.model_dump() for row in flat_results(answers, pairs)])
    return analysis


def _account(sources: Sources) -> Row:
    kept = ("rows_in", "kept", "kept_by_kind", "dropped", "changed", "schemas", "licences", "languages", "lengths")
    return {
        "counts": {
            name: {"instructions": len(split.examples), "pairs": len(split.pairs)}
            for name, split in sources.splits.items()
        },
        "cleaning": {name: {key: report[key] for key in kept} for name, report in sources.reports.items()},
    }
