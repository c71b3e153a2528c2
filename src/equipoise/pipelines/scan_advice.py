"""Which objective and tau a scan suggests, each with the numbers and the evidence that speak for it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from equipoise.pipelines.scan_settings import ScanSettings
from equipoise.pipelines.scan_tables import PREFERENCES, PUBLISHED_TAU
from equipoise.testbed.examples import TESTBED

OBJECTIVE = "sft"
# What `instruct` says of the testbed alone, put back for other data and larger models.
OWN = ("clean.licences=null", "sft.learning_rate=2e-4", "evaluation.by=null", "evaluation.sanity=default")
MANY, FEW = 0.5, 0.01  # shares of the examples that hold a conflict
MUCH_FORM = 0.05  # share of the rows


def advise(found: Mapping[str, Any], source: str, settings: ScanSettings) -> dict[str, Any]:
    """Give `objective`, `tau` (null without a conflict), the `reasons` in sentences, and a `command`.

    The objective is `sft` until a measurement speaks for another one (LOG.md); tau is for R-EAFT's test as a detector.
    """
    with_conflict, examples = found["examples_with_conflict"], found["n_examples"]
    share = with_conflict / examples
    separating = found["tau"]
    told = (
        f"{with_conflict} of {examples} examples ({share:.1%}) hold a token in conflict with what the model would say"
    )
    reasons = [f"{told}.", *_why(share, found)]
    if (form := _form(found)) is not None:
        reasons.append(form)
    if found.get("old"):
        reasons.append(_old(found["old"]))
    if separating is not None:
        reasons.append(_why_tau(separating, found))
    if found.get("delta") is not None:
        reasons.append(_why_delta(found["delta"]))
    tau = None if separating is None else float(f"{separating['tau']:.3g}")
    return {
        "objective": OBJECTIVE,
        "tau": tau,
        "reasons": reasons,
        "command": _command(share, source, settings),
    }


def _why(share: float, found: Mapping[str, Any]) -> list[str]:
    if share >= MANY:
        return [
            "Where nearly every row is a correction there is little for a weighting to pick out: in Protocol A on the "
            "testbed sft corrected 98.0% and r-eaft (detached) 99.2%, a difference of +1.2 points [-1.0, 3.4], and sft "
            "generalised better. Take the simpler one.",
            "First read the list: if these rows are themselves wrong, mend them; sft and r-eaft both teach them.",
        ]
    if share >= FEW:
        return [
            "Among rows that mostly agree with the model r-eaft was to do better, but did not: on 50 contradictions "
            "among 290 known facts of the testbed (one seed) sft corrected 100%, r-eaft 98% with tau 5 and 58% with a "
            "tau that flags conflicts alone, and all kept what was known. Take r-eaft as an arm to compare with.",
            "First read the list: if these rows are themselves wrong, mend or drop them; eaft would leave the "
            "model's opinion alone (0% corrected in Protocol A).",
        ]
    learnt = 1 - found["tokens"]["stable"] / found["n_tokens"]
    return [
        f"Next to nothing here is to be corrected. {learnt:.1%} of the tokens are not "
        "known yet (uncertain, unknown, form or in conflict); sft learns those; what is stable has little loss.",
        *(
            ["The model knows nearly all of this already: training on it can change little for the better."]
            if learnt < 0.02
            else []
        ),
    ]


def _form(found: Mapping[str, Any]) -> str | None:
    """What to do about answers whose form alone is new; None where they are few."""
    only, examples = found["conclusions"]["form"], found["n_examples"]
    if only < MUCH_FORM * examples:
        return None
    return (
        f"{only} of {examples} rows ({only / examples:.1%}) are not expected as they are asked, but are once other "
        "rows have shown the form of the answers: the model knows what they say. Learn the form first, by a short sft "
        "on some of these rows, or ask in the form that the model uses; otherwise a weighting takes form for fact."
    )


def _old(preferred: Mapping[str, int]) -> str:
    old, neither, new = (preferred[name] for name in PREFERENCES)
    return (
        f"Of {old + neither + new} rows with an outdated answer the model holds it for ten times likelier than the new "
        f"one, or more, in {old}, and the new one in {new}; the other {neither} lie between."
    )


def _why_delta(found: Mapping[str, Any]) -> str:
    return (
        f"delta: at {found['delta']:.2g} the test tail < delta flags {found['flagged']} tokens, {found['hits']} of the "
        f"conflicts among them (precision {found['precision']:.2f}, recall {found['recall']:.2f})."
    )


def _why_tau(separating: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return (
        f"tau: at {separating['tau']:.3g} the test shock > tau flags {separating['flagged']} tokens, "
        f"{separating['hits']} of the {found['tokens']['conflict']} conflicts among them (precision "
        f"{separating['precision']:.2f}, recall {separating['recall']:.2f}); at the published {PUBLISHED_TAU:g} it "
        f"flags {found['flagged_at_published_tau']}."
        + (" No tau tells these conflicts apart from what is form or unknown." if separating["precision"] < 0.5 else "")
    )


def _command(share: float, source: str, settings: ScanSettings) -> str:
    words = ["equipoise", "run"]
    if source.startswith(TESTBED):
        recipe = "instruct" if source == "testbed:instructions" else "knowledge-update"
        words += [recipe, *([] if recipe == "instruct" else [f"data.updates={source}"])]
    elif share >= MANY:
        words += ["own-model", f"data.updates={source}"]
        # the testbed's models are small, and learn nothing at the rate of a model of the user's
        words += ["training.learning_rate=1e-3"] if settings.model.path.startswith(TESTBED.rstrip(":")) else []
    else:
        words += ["instruct", f"data.sources={json.dumps([source])}", "data.validation=0.05", "data.test=0.05"]
        words += ["dpo=null", *OWN]
    model = settings.model.model_dump(mode="json", exclude_defaults=True) | {"path": settings.model.path}
    words += [f"model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in model.items()]
    return shlex.join([*words, f"objective.name={OBJECTIVE}"])
