"""The data of an instruct run: cleaned once, split so that no question is in two sets, and read again on each start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from equipoise.config import load_yaml, resolve
from equipoise.console import say
from equipoise.data.gathering import open_rows
from equipoise.data.loading import check_disjoint, load_examples
from equipoise.data.preferences import load_pairs, preferred
from equipoise.data.schemas import COLUMNS
from equipoise.data.splits import split_groups
from equipoise.errors import UserError
from equipoise.journal import atomic_directory, verify_directory
from equipoise.pipelines.cleaning import EXAMPLES, PAIRS, REPORT, clean
from equipoise.pipelines.cleaning_settings import CleaningSettings, NearSettings
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.records import Example, PreferencePair
from equipoise.testbed import instructions

TESTBED = "testbed:"
SPLITS = ("train", "validation", "test")
TRAIN_PART = "instructions"
HELD_OUT = "held_out"  # the folder of cleaned validation and test files


@dataclass(frozen=True)
class Split:
    """The instructions and the preference pairs of one split."""

    examples: list[Example]
    pairs: list[PreferencePair]


@dataclass(frozen=True)
class Sources:
    """Clean data in three splits, and for each folder of cleaning its report."""

    splits: dict[str, Split]
    reports: dict[str, dict[str, Any]]

    @property
    def train(self) -> Split:
        """What is trained on."""
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        """What is looked at while training."""
        return self.splits["validation"]

    @property
    def test(self) -> Split:
        """What is measured in the end."""
        return self.splits["test"]


def prepare(recipe: InstructRecipe, folder: Path) -> Sources:
    """Clean the sources of `recipe` into `folder`, unless they are there clean already, and split them.

    Held-out sets are brought into the same form; what they ask leaves the training data.

    Raises:
        UserError: a source cannot be read or was changed since it was cleaned, nothing is left to train on, or one
            question stands in two splits.
    """
    data, reports = recipe.data, {}
    against: list[Path] = []
    for name in SPLITS[1:]:
        if isinstance(getattr(data, name), list):
            place = folder / HELD_OUT / name
            reports[name] = _cleaned_held_out(recipe, name, folder)
            against += [file for file in (place / EXAMPLES, place / PAIRS) if file.exists()]
    settings = CleaningSettings(
        seed=recipe.data.split_seed,
        model=recipe.model if recipe.clean.length != type(recipe.clean.length)() else None,
        against=tuple(map(str, against)),
        **{name: getattr(recipe.clean, name) for name in type(recipe.clean).model_fields},
    )
    reports["train"] = _cleaned(_paths(data.sources, folder, "train"), folder / "clean", settings)
    splits = _split(_read(folder / "clean"), recipe)
    splits |= {name: _read(folder / HELD_OUT / name) for name in reports if name != "train"}
    splits["train"] = Split(splits["train"].examples[: data.limit], splits["train"].pairs[: data.limit])
    _check(recipe, splits)
    return Sources(splits, reports)


def test_split(recipe: InstructRecipe, scratch: Path, run: Path | None) -> Split:
    """The test rows of `recipe` for a model that may lie in a `run`: the run's, or else cleaned into `scratch`.

    Nothing is added to a run.

    Raises:
        UserError: as `prepare`, no row is held out, or the run trained on one of them.
    """
    of_run = run is not None and load_yaml(run / "config.yaml").get("pipeline") == "instruct"
    trained = resolve(InstructRecipe, run / "config.yaml") if run and of_run else None
    if run and trained and (recipe.data, recipe.clean) == (trained.data, trained.clean):
        test = prepare(recipe, run).test
    else:
        test = _test_alone(recipe, scratch)
        if run and trained:
            _refuse_shared(prepare(trained, run).train, test)
    if not (test.examples or test.pairs):
        raise UserError("no row is held out to measure on", where="data.test", fix="name a share, or files")
    return test


def _test_alone(recipe: InstructRecipe, folder: Path) -> Split:
    """The test rows; where they have files of their own, nothing else is cleaned."""
    if not isinstance(recipe.data.test, list):
        return prepare(recipe, folder).test
    _cleaned_held_out(recipe, "test", folder)
    return _read(folder / HELD_OUT / "test")


def _cleaned_held_out(recipe: InstructRecipe, name: str, folder: Path) -> dict[str, Any]:
    settings = CleaningSettings(near=NearSettings(threshold=None), max_bad_share=recipe.clean.max_bad_share)
    return _cleaned(_paths(getattr(recipe.data, name), folder, name), folder / HELD_OUT / name, settings)


def _paths(sources: Sequence[str], folder: Path, name: str) -> list[str | Path]:
    """The sources as `clean` reads them; those of the testbed are written out first."""
    paths: list[str | Path] = []
    for source in sources:
        part = source.removeprefix(TESTBED) if source.startswith(TESTBED) else None
        if part is None:
            paths.append(source)
        elif part in (TRAIN_PART, "validation", "test"):
            paths += _written(folder / "raw" / part, part)
        else:
            raise UserError(
                f"the testbed has no part {part!r} for this",
                where=f"data.{name if name != 'train' else 'sources'}",
                fix="testbed:instructions to train on; testbed:validation and testbed:test are held out",
            )
    return paths


def _written(place: Path, part: str) -> list[Path]:
    """The files of a part of the testbed in `place`, written once: a run that is only looked at stays as it is."""
    if not place.is_dir():
        with atomic_directory(place) as folder:
            if part == TRAIN_PART:
                instructions.write_raw(folder)
            else:
                instructions.write_held_out(folder, part)
    names = instructions.SOURCES if part == TRAIN_PART else (EXAMPLES, PAIRS)
    return [place / name for name in names]


def _cleaned(paths: list[str | Path], place: Path, settings: CleaningSettings) -> dict[str, Any]:
    """Clean into `place`, or take what was cleaned there from the same sources."""
    report = place / REPORT
    if not report.exists():
        return clean(paths, place, settings)
    problems = verify_directory(place)
    if problems:
        raise UserError(f"the clean data is damaged: {problems[0]}", where=str(place), fix="delete this folder")
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    for path, before in zip(paths, found["sources"], strict=True):
        rows = open_rows(path, COLUMNS)
        for _ in rows:
            pass
        if rows.sha256 != before["sha256"]:
            raise UserError(
                "this data was changed since the run cleaned it",
                where=str(path),
                fix="start a new run with --out, or put the data back",
            )
    say(f"clean already: {place}")
    return found


def _read(place: Path) -> Split:
    examples, pairs = place / EXAMPLES, place / PAIRS
    return Split(
        load_examples(examples).examples if examples.exists() else [],
        load_pairs(pairs).pairs if pairs.exists() else [],
    )


def _split(clean: Split, recipe: InstructRecipe) -> dict[str, Split]:
    """Set apart the shares that are asked for; a question of both kinds goes one way."""
    held = {name: share for name in SPLITS[1:] if isinstance(share := getattr(recipe.data, name), float)}
    shares = {"train": 1 - sum(held.values()), **held}
    stand_ins = [preferred(pair) for pair in clean.pairs]
    pairs = {id(example): pair for example, pair in zip(stand_ins, clean.pairs, strict=True)}
    found = split_groups([*clean.examples, *stand_ins], shares, recipe.data.split_seed)
    return {
        name: Split([e for e in rows if id(e) not in pairs], [pairs[id(e)] for e in rows if id(e) in pairs])
        for name, rows in found.items()
    }


def _check(recipe: InstructRecipe, splits: dict[str, Split]) -> None:
    train = splits["train"]
    if recipe.sft is not None and not train.examples:
        raise UserError("there is no instruction to train on", where="data.sources", fix="set sft=null for DPO alone")
    if recipe.dpo is not None and not train.pairs:
        raise UserError(
            "there are no preference pairs to train on",
            where="data.sources",
            fix="add a source whose rows have `chosen` and `rejected`, or set dpo=null",
        )
    for one, other in combinations(SPLITS, 2):
        _refuse_shared(splits[one], splits[other])


def _refuse_shared(one: Split, other: Split) -> None:
    """Refuse a question that stands in both splits, in whichever kind."""
    check_disjoint(*([*split.examples, *map(preferred, split.pairs)] for split in (one, other)))
