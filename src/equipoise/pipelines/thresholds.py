"""`tau: auto`: found once for the untrained model of a run and kept in its folder, so that a resume has the same."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from equipoise.console import say
from equipoise.data.formatting import render_prompt
from equipoise.evaluation.own_tokens import PUBLISHED_TAU, AutoTau, auto_tau, own_tokens
from equipoise.journal import write_json
from equipoise.models.loading import Loaded
from equipoise.records import Example
from equipoise.runs import THRESHOLDS
from equipoise.training.settings import ObjectiveSettings

Arm = TypeVar("Arm", bound=ObjectiveSettings)


def wanted(arms: Mapping[str, ObjectiveSettings]) -> list[float]:
    """The false-alarm rates that a tau is to be found for."""
    return sorted({arm.false_alarm for arm in arms.values() if arm.false_alarm is not None})


def settle(loaded: Loaded, examples: Iterable[Example], rates: Collection[float], folder: Path, *, seed: int) -> None:
    """Have the model continue the prompts of `examples`, and write the tau of each rate into `folder`, once.

    Raises:
        UserError: no prompt leaves the model room to write.
    """
    if set(rates) <= set(read(folder)):
        return
    own = own_tokens(loaded, [render_prompt(loaded.tokenizer, example) for example in examples], seed=seed)
    found = [auto_tau(own, rate) for rate in rates]
    write_json(folder / THRESHOLDS, [asdict(one) for one in found])
    for one in found:
        say(sentence(one))


def read(folder: Path) -> dict[float, float]:
    """The taus in a run directory by false-alarm rate."""
    path = folder / THRESHOLDS
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {row["false_alarm"]: row["tau"] for row in rows}


def with_taus(arms: Mapping[str, Arm], taus: Mapping[float, float]) -> dict[str, Arm]:
    """Return the arms with a number for every `tau: auto` whose rate is among `taus`."""
    found = {name: None if arm.false_alarm is None else taus.get(arm.false_alarm) for name, arm in arms.items()}
    return {name: arm if (tau := found[name]) is None else arm.with_tau(tau) for name, arm in arms.items()}


def sentence(found: AutoTau) -> str:
    """Say what was found and how well it is known."""
    between = f" [{found.interval[0]:.3g}, {found.interval[1]:.3g}]" if found.interval else ""
    return (
        f"tau: auto is {found.tau:.3g}{between}: above it lie {found.false_alarm:.3g} of {found.n:,} tokens that the "
        f"model wrote itself; the published {PUBLISHED_TAU:g} would flag {found.published:.0%} of them"
    )
