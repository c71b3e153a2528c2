"""What training changed, answer by answer: corrected and not corrected updates, lost and gained rows of what stays."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from equipoise.console import visible
from equipoise.records import KEEP_TASKS
from equipoise.report.arms import Arm
from equipoise.report.page import mapping
from equipoise.report.reading import RunData

Row = Mapping[str, Any]
LONGEST = 1200  # characters of a text that the page shows
MANY = 500  # rows of a list that the page shows
SHORT = 5  # lists of so few rows stand open
UPDATES = {"correction": "trained phrasing", "generalisation": "held-out phrasings"}
# What became of updates: the title, the kind of its mark, and which change it is.
OUTCOMES = (
    ("Corrected", "yes", "gained"),
    ("Not corrected", "open", "never known"),
    ("Right before, wrong now", "no", "lost"),
    ("Right before and after", "none", "kept"),
)


class Key(NamedTuple):
    """One question whatever seed answers it."""

    task: str
    item: str
    phrasing: int


@dataclass(frozen=True)
class Text:
    """A text as it is shown; `more` characters at its end are left out."""

    shown: str
    more: int


@dataclass(frozen=True)
class Change:
    """One question with its answers before and after.

    Attributes:
        code: the question is text to continue, not a message.
        seeds: in how many of the seeds it came out like this; empty where there is one seed.
    """

    item: str
    prompt: Text
    code: bool
    gold: Text
    old: Text | None
    before: Text
    after: Text
    cut: bool
    seeds: str


@dataclass(frozen=True)
class ChangeList:
    """Changes of one kind; `kind` is that of a verdict's mark, and `more` rows are left out at its end."""

    title: str
    kind: str
    mark: str
    open: bool
    rows: list[Change]
    more: int = 0


@dataclass(frozen=True)
class ArmChanges:
    """What one arm changed: the counts in words, then every answer."""

    arm: Arm
    seed: Any
    seeds: int
    counts: list[str]
    lists: list[ChangeList] = field(default_factory=list)


def by_arm(run: RunData, arms: Mapping[str, Arm]) -> list[ArmChanges]:
    """List for each arm what it corrected, lost and gained with its first seed, and how many seeds agree."""
    analysis = run.analysis or {}
    known, blind = mapping(analysis.get("known")), mapping(analysis.get("cannot_tell"))
    return [
        _of_arm(arm, [row for row in run.changes if row["method"] == name], known, blind)
        for name, arm in arms.items()
        if any(row["method"] == name for row in run.changes)
    ]


def _of_arm(arm: Arm, rows: Sequence[Row], known: Row, blind: Row) -> ArmChanges:
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    agree = Counter((_key(row), row["change"]) for row in rows)

    def shown(chosen: Iterable[Row]) -> list[Change]:
        return [_change(row, agree[_key(row), row["change"]], len(seeds)) for row in chosen]

    first = [row for row in rows if row["seed"] == seeds[0]]
    counts, lists = [], []
    for task, words in UPDATES.items():
        asked = [row for row in first if row["task"] == task]
        if asked:
            counts.append(f"{words}: corrected {_n(asked, 'gained')} of {len(asked)}")
            lists += [
                _list(f"{title}, {words}", kind, shown(row for row in asked if row["change"] == change), len(asked))
                for title, kind, change in OUTCOMES
            ]
    missing, found = [], []  # what was lost comes before what was gained
    for task in (task for task in KEEP_TASKS if task in known or any(row["task"] == task for row in rows)):
        mine = [row for row in first if row["task"] == task]
        if task == "preference kept":  # is no answer
            continue
        right = mapping(known.get(task)).get("right")
        counts.append(_stayed(task, mine, known.get(task)) + (", too few to tell" if task in blind and right else ""))
        lost = shown(row for row in mine if row["change"] == "lost")
        missing.append(_list(f"Lost, {task}", "no", lost, right, always_open=True))
        elsewhere = shown(_only_elsewhere(rows, task, seeds[0]))
        missing.append(_list(f"Lost with other seeds only, {task}", "no", elsewhere, right, always_open=True))
        found.append(_list(f"Gained, {task}", "yes", shown(row for row in mine if row["change"] == "gained"), None))
    return ArmChanges(arm, seeds[0], len(seeds), counts, [one for one in [*missing, *lists, *found] if one.rows])


def _stayed(task: str, rows: Sequence[Row], found: Any) -> str:
    """Say how many answers to a task to keep were lost and gained."""
    lost, gained = _n(rows, "lost"), _n(rows, "gained")
    if found is None:
        return f"{task}: lost {lost}, gained {gained}"
    more = f", gained {gained}" if gained else ""
    if not found["right"]:
        return f"{task}: the untrained model knew none of {found['asked']}, so nothing could be lost{more}"
    of = f"of the {found['right']} (of {found['asked']}) that the untrained model knew"
    return f"{task}: lost {lost or 'none'} {of}{more}"


def _n(rows: Iterable[Row], change: str) -> int:
    return sum(row["change"] == change for row in rows)


def _only_elsewhere(rows: Sequence[Row], task: str, first: Any) -> list[Row]:
    """Take each row that is lost, but not with the first seed, once."""
    lost = [row for row in rows if row["task"] == task and row["change"] == "lost"]
    here = {_key(row) for row in lost if row["seed"] == first}
    return list({_key(row): row for row in reversed(lost) if _key(row) not in here}.values())[::-1]


def _list(title: str, kind: str, rows: Sequence[Change], of: int | None, *, always_open: bool = False) -> ChangeList:
    mark = {"yes": "✓", "no": "✗"}.get(kind, "–")
    count = f"{title}: {len(rows)}" if of is None else f"{title}: {len(rows)} of {of}"
    opened = always_open or len(rows) <= SHORT
    return ChangeList(count, kind, mark, opened, list(rows[:MANY]), max(len(rows) - MANY, 0))


def _key(row: Row) -> Key:
    return Key(row["task"], row["item"], row.get("phrasing", 0))


def _change(row: Row, agree: int, seeds: int) -> Change:
    return Change(
        item=str(row["item"]),
        prompt=_text(row["prompt"]),
        code=row.get("form") == "text",
        gold=_text(row["gold"]),
        old=_text(row["old"]) if row.get("old") else None,
        before=_text(row["before"]),
        after=_text(row["after"]),
        cut=bool(row.get("cut")),
        seeds=f"{agree} of {seeds}" if seeds > 1 else "",
    )


def _text(text: str) -> Text:
    """Cut what is too long to show; blank lines around go, the indentation of several lines stays."""
    whole = visible(text).strip("\n").rstrip()
    whole = whole if "\n" in whole else whole.strip()
    return Text(whole[:LONGEST], max(len(whole) - LONGEST, 0))
