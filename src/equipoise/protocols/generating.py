"""What the verb `generate` does: answers to the questions of a recipe, or samples for the sentences of a source."""

import json
from pathlib import Path
from typing import Any

from equipoise.catalogue import find
from equipoise.config import load_yaml, resolve
from equipoise.errors import UserError
from equipoise.pipelines.sampling_settings import SamplingRecipe

# options of the command line, and the settings that they stand for
SETTINGS = {
    "inputs": "inputs",
    "model": "model.path",
    "samples": "sampling.samples",
    "seed": "seed",
    "max_inputs": "max_inputs",
    "backend": "sampling.backend",
    "base_url": "sampling.base_urls",
}


def generate(
    recipe: str | None, overrides: list[str], out: Path | None, compare: Path | None, options: dict[str, Any]
) -> None:
    """Run what the words of a command line mean.

    Args:
        recipe: a recipe, or the first override where there is none.
        options: those of `SETTINGS`, and `max_samples`, `skip_labelled`, `resume` and `mock`.

    Raises:
        UserError: the words contradict each other, or what they name is at fault.
    """
    if recipe is not None and "=" in recipe:
        recipe, overrides = None, [recipe, *overrides]
    path = find(recipe) if recipe is not None else None
    given = {name: value for name, value in options.items() if value is not None and value is not False and value != []}
    if path is not None and load_yaml(path).get("pipeline") != "sampling":
        _first_stage(path, overrides, out, given)
        return
    if path is None and compare is None and "inputs" not in given:
        raise UserError(
            "nothing says what to answer",
            fix="name a recipe, or give --inputs with a CoNLL or JSONL file, hub:NAME:SPLIT or testbed:target",
            docs="docs/generating.md",
        )
    overrides = [f"{SETTINGS[name]}={json.dumps(given[name])}" for name in SETTINGS if name in given] + overrides
    settings = resolve(SamplingRecipe, path, overrides)
    from equipoise.pipelines import sampling_job

    if compare is not None:
        sampling_job.compare(compare, settings if path or "inputs" in given else None)
        return
    how = {name: given[name] for name in ("resume", "skip_labelled", "max_samples", "mock") if name in given}
    sampling_job.run(settings, out or Path(f"{settings.name}.jsonl"), **how)


def _first_stage(path: Path, overrides: list[str], out: Path | None, given: dict[str, Any]) -> None:
    """Answer the questions, or draw the samples, of a recipe that goes on from there; so does its run folder."""
    if given:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(
            f"{words} has no meaning for this recipe, which says itself what to ask and whom",
            where=str(path),
            fix="change the recipe's settings with KEY=VALUE, or leave the recipe out and give --inputs",
        )
    if load_yaml(path).get("pipeline") == "synthetic_rl":
        from equipoise.protocols.synthetic import run_synthetic

        run_synthetic(path, overrides, out, until="samples")
        return
    from equipoise.protocols.confidence import run_confidence

    run_confidence(path, overrides, out, until="answers")
