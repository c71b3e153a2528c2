"""The verb `generate` on a source of sentences: read them, draw samples into a file, and say what is in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from equipoise.console import say, warn
from equipoise.data.extraction import load_sentences, pairs
from equipoise.errors import UserError
from equipoise.models.loading import load_model
from equipoise.pipelines.mock_samples import Mock
from equipoise.pipelines.sample_account import account, show
from equipoise.pipelines.sample_files import read_samples
from equipoise.pipelines.sampling import backend_of, sample_inputs
from equipoise.pipelines.sampling_settings import SamplingRecipe
from equipoise.records import Sentence
from equipoise.testbed import ner

TESTBED = "testbed:"
MOCK = "mock"


def load_inputs(recipe: SamplingRecipe, *, labelled: bool = False) -> tuple[list[Sentence], tuple[str, ...]]:
    """The sentences of a recipe, the first `max_inputs` of them, and the types to ask for.

    Raises:
        UserError: the source cannot be read, or no types are known.
    """
    if recipe.inputs.startswith(TESTBED):
        domain, _, split = recipe.inputs.removeprefix(TESTBED).partition(":")
        if domain not in ner.TYPES or split not in ("", "train", "dev", "test"):
            raise UserError(
                f"the testbed has no sentences {recipe.inputs!r}",
                where="inputs",
                fix=f"one of {', '.join(TESTBED + name for name in ner.TYPES)}, with :train, :dev or :test after it",
            )
        sentences, found = ner.load(domain, split or "train"), ner.TYPES[domain]
    else:
        loaded = load_sentences(
            recipe.inputs,
            recipe.name,
            adapter=recipe.adapter,
            max_bad_share=recipe.max_bad_share,
            labelled=labelled,
        )
        for note in loaded.notes:
            warn(note)
        if loaded.dropped:
            say(f"{len(loaded.dropped)} rows left out, first line {loaded.dropped[0].line}: {loaded.dropped[0].reason}")
        sentences, found = loaded.sentences, loaded.types
    types = tuple(recipe.types or found)
    if not types:
        raise UserError(
            "nobody says which types of entities to ask for, and the inputs have no labels that show it",
            where="types",
            fix='give them, as in "types=[person, place]"',
        )
    return sentences[: recipe.max_inputs], types


def run(
    recipe: SamplingRecipe,
    out: Path,
    *,
    resume: bool = False,
    skip_labelled: bool = False,
    max_samples: int | None = None,
    mock: bool = False,
) -> None:
    """Draw the samples of a recipe into the file `out`, as `sample_inputs` does, and print what the file then holds.

    Raises:
        UserError: an input is at fault, or the file holds samples and nothing says that it may be added to.
    """
    sentences, types = load_inputs(recipe, labelled=mock)
    if mock:
        name, backend = MOCK, Mock(sentences, types)
    else:
        name, backend = model_name(recipe), backend_of(recipe.sampling, recipe.model, cache(_loader(recipe)))
    drawn = sample_inputs(
        backend,
        sentences,
        types=types,
        settings=recipe.sampling,
        model_name=name,
        seed=recipe.seed,
        journal_path=out,
        resume=resume,
        instruction=recipe.instruction,
        skip_labelled=skip_labelled,
        max_samples=max_samples,
        label=f"samples of {name}",
    )
    held = read_samples(out).samples
    show(held, {s.id: pairs(s.entities) for s in sentences if s.entities is not None})
    if drawn and account(drawn)[name]["unreadable"] > 0.5:
        warn(f"more than half of the answers of {name} cannot be read; look at `text` and `problem` in {out}")
    say(f"{len(held)} samples in {out}")


def compare(path: Path, recipe: SamplingRecipe | None = None) -> None:
    """Print what a file holds, model by model; with a recipe whose inputs have labels also how right each is.

    Raises:
        UserError: there is no such file, it holds something else, or the inputs cannot be read.
    """
    file = read_samples(path)
    for reason in file.dropped:
        warn(f"{path}: {reason}")
    if not file.samples:
        raise UserError("the file holds no samples yet", where=str(path))
    sentences = load_inputs(recipe)[0] if recipe else []
    show(file.samples, {s.id: pairs(s.entities) for s in sentences if s.entities is not None})


def model_name(recipe: SamplingRecipe) -> str:
    """What the samples' `model` says: its path, and the adapter on top of it if there is one."""
    return "+".join(filter(None, (recipe.model.path, recipe.model.adapter)))


def _loader(recipe: SamplingRecipe):
    return lambda: load_model(recipe.model)
