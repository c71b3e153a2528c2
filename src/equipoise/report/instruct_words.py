"""What an instruct run found, in sentences: what cleaning removed, what SFT and DPO gained and what they cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from equipoise.report.confidence_words import percent
from equipoise.report.instruct_reading import DPO, SFT, UNTRAINED, InstructRun
from equipoise.report.page import Verdict, mapping, sequence
from equipoise.report.synthetic_words import basis, points, sign, span

OPEN = "not settled"


@dataclass(frozen=True)
class Measure:
    """How a measure of the analysis is written, and which direction is better; None is neither."""

    title: str
    write: Callable[[float], str]
    change: Callable[[float], str]
    unit: str  # of a change
    higher_is_better: bool | None
    of: str  # what it is measured on


def _signed(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value:+.{digits}f}".replace("-", "−")


MEASURES = {
    "loss": Measure("answer loss", lambda v: f"{v:.3f}", _signed(3), "nats a token", False, "answers"),
    "exact": Measure("exact answers", percent, points, "points", True, "answers"),
    "pairs": Measure("pairs right", percent, points, "points", True, "pairs"),
    "pairs_per_token": Measure("pairs right by token", percent, points, "points", True, "pairs"),
    "length": Measure("tokens an answer", lambda v: f"{v:.1f}", _signed(1), "tokens", None, "answers"),
}
# What cleaning left out, as it reads after a number.
REMOVED = {
    "broken": "broken",
    "schema": "in no known schema",
    "empty": "with nothing to learn from",
    "licence": "without an allowed licence",
    "duplicate": "duplicates",
    "near-duplicate": "near duplicates",
    "overlap": "whose question is held out",
    "near-overlap": "whose question is nearly one held out",
    "short": "too short",
    "long": "too long",
    "mixture": "more than the mixture has room for",
}
KINDS = {"answers": "questions", "pairs": "pairs"}


def findings(found: InstructRun) -> list[Verdict]:
    """Give the findings on training that the run has the numbers for, in the order of its stages."""
    said = [_loss(found), _exact(found), _pairs(found), _cost(found)]
    return [one for one in said if one]


def removed(found: InstructRun) -> list[Verdict]:
    """Say how much cleaning left out of the training data, and why."""
    report = mapping(mapping(found.data.get("cleaning")).get("train"))
    if not report:
        return []
    rows_in, kept = report["rows_in"], report["kept"]
    dropped = sorted(report["dropped"].items(), key=lambda entry: -entry[1])
    reasons = ", ".join(f"{n:,} {REMOVED.get(rule, rule)}" for rule, n in dropped)
    sentence = (
        f"{rows_in - kept:,} of {rows_in:,} rows were left out: {reasons}." if dropped else "No row was left out."
    )
    changed = sum(report["changed"].values())
    sentence += f" {changed:,} changes were made to rows that stayed." if changed else ""
    word = f"{percent((rows_in - kept) / rows_in)} left out"
    details = "Every row that was left out or changed is listed with its reason in the run's folder clean/."
    return [Verdict("What did cleaning remove?", "none", word, sentence, details)]


def change(found: InstructRun, measure: str, stage: str, against: str) -> Mapping[str, Any]:
    """Give what a stage changed against another; empty where the analysis does not say."""
    rows = sequence(found.analysis.get("changes"))
    wanted = (measure, stage, against)
    return next((row for row in rows if (row["measure"], row["stage"], row["against"]) == wanted), {})


def before(found: InstructRun, stage: str) -> str:
    """Name the stage that a stage began from."""
    return found.stages[found.stages.index(stage) - 1]


def in_interval(name: str, row: Mapping[str, Any]) -> str:
    """Write the ends of a change's interval, empty where it has none."""
    return span(row, write=MEASURES[name].change)


def difference(name: str, row: Mapping[str, Any]) -> str:
    """Write a change with its unit and interval."""
    measure, ends = MEASURES[name], in_interval(name, row)
    said = f"{measure.change(row['estimate'])} {measure.unit}"
    return said + (f" [{ends.replace(' to ', ', ')}]" if ends else "")


def judged(name: str, row: Mapping[str, Any], up: str, down: str) -> tuple[str, str]:
    """Give kind and word of a change, where `up` is for the better; an interval that holds 0 settles nothing."""
    if MEASURES[name].higher_is_better is False and row.get("bootstrap"):
        low, high = row["bootstrap"]
        row = {**row, "bootstrap": [-high, -low]}
    return sign(row, up, down, OPEN)


def counted(found: InstructRun, of: str) -> str:
    """Say how many test questions or pairs there are, and about how many groups of them."""
    n = mapping(found.analysis.get("n"))
    said, groups = f"{n[of]:,} {KINDS[of]}", n.get(f"{of}_groups")
    return said if groups in (None, n[of]) else f"{said} in {groups:,} groups"


def _basis(found: InstructRun, name: str, row: Mapping[str, Any]) -> str:
    measure = MEASURES[name]
    return basis(row, counted(found, measure.of), measure.change)


def _moved(found: InstructRun, name: str, stage: str, against: str) -> str:
    """Say what a measure was and is, with the change and its interval."""
    scores, write = found.analysis["scores"], MEASURES[name].write
    old, new = (write(scores[each][name]["mean"]) for each in (against, stage))
    row = change(found, name, stage, against)
    return f"{old} {'before training' if against == UNTRAINED else 'before'}, {new} after: {difference(name, row)}"


def _loss(found: InstructRun) -> Verdict | None:
    row = change(found, "loss", SFT, UNTRAINED)
    if not row:
        return None
    kind, word = judged("loss", row, "yes", "no, it rose")
    sentence = f"Loss of the right answers in nats a token: {_moved(found, 'loss', SFT, UNTRAINED)}."
    claim = "Did SFT lower the loss on held-out answers?"
    return Verdict(claim, kind, word, sentence, _basis(found, "loss", row))


def _exact(found: InstructRun) -> Verdict | None:
    row = change(found, "exact", SFT, UNTRAINED)
    if not row:
        return None
    kind, word = judged("exact", row, "yes", "no, fewer")
    sentence = f"Exactly the right answer: {_moved(found, 'exact', SFT, UNTRAINED)}."
    claim = "Does it answer more held-out questions exactly right after SFT?"
    return Verdict(claim, kind, word, sentence, _basis(found, "exact", row))


def _pairs(found: InstructRun) -> Verdict | None:
    if DPO not in found.stages:
        return None
    against = before(found, DPO)
    row = change(found, "pairs", DPO, against)
    if not row:
        return None
    kind, word = judged("pairs", row, "yes", "no, it fell")
    sentence = f"The better answer of a pair has the higher log-probability: {_moved(found, 'pairs', DPO, against)}."
    if change(found, "pairs_per_token", DPO, against):
        sentence += f" By mean log-probability a token: {_moved(found, 'pairs_per_token', DPO, against)}."
    claim = "Did DPO make it prefer the better answer of held-out pairs?"
    return Verdict(claim, kind, word, sentence, f"{_basis(found, 'pairs', row)}{_shorter(found)}")


def _shorter(found: InstructRun) -> str:
    """Say how many of the better answers have fewer tokens: a sum over tokens favours those."""
    rows = [row for row in found.pairs if row.get("method") == DPO]
    shorter = sum(row["chosen_tokens"] < row["rejected_tokens"] for row in rows)
    if not rows:
        return ""
    return f" In {percent(shorter / len(rows))} of pairs the better answer is the shorter one, which a sum favours."


def _cost(found: InstructRun) -> Verdict | None:
    if DPO not in found.stages:
        return None
    against = before(found, DPO)
    rows = {name: change(found, name, DPO, against) for name in ("loss", "exact", "length")}
    if not all(rows.values()):
        return None
    lost = {"loss": "the loss rose", "exact": "fewer exact answers"}
    judgements = [judged(name, rows[name], "nothing lost", word) for name, word in lost.items()]
    worst = min(judgements, key=lambda one: (not one[1].startswith(tuple(lost.values())), one[1] != OPEN))
    said = " ".join(f"{MEASURES[name].title.capitalize()}: {_moved(found, name, DPO, against)}." for name in rows)
    fallen = _fallen(found, DPO, against)
    if fallen:
        worst = ("no", "lost in parts")
        said += f" Fewer exact answers in {'; '.join(fallen)}."
    note = "DPO raises the gap between the answers of a pair, and may do so while both become less likely."
    return Verdict("What did DPO cost?", *worst, said, f"{note} {_basis(found, 'loss', rows['loss'])}")


def _fallen(found: InstructRun, stage: str, against: str) -> list[str]:
    """Name the parts whose exact answers became fewer, so far that the two intervals do not meet."""
    fallen = []
    for part, by in (found.analysis.get("parts") or {}).items():
        old, new = mapping(by.get(against)), mapping(by.get(stage))
        lowest, highest = old.get("low"), new.get("high")
        if lowest is not None and highest is not None and highest < lowest:
            fallen.append(f"{part}: {percent(old['mean'])} before, {percent(new['mean'])} after")
    return fallen
