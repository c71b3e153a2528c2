"""Results in the shape that an analysis needs: one value an arm, task and seed, and scores by item if there are any."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import UserError
from equipoise.records import Prediction, Result

UNTRAINED = "untrained"
TASKS = (
    *("correction", "generalisation", "efficacy", "paraphrase efficacy"),
    *("locality", "preference kept", "retention", "functions", "general", "held-out", "drift"),
)
Floats = NDArray[np.float64]


class ItemScore(NamedTuple):
    """The score of one model's answer to one question; `Prediction` has the same fields and more."""

    method: str
    seed: int
    task: str
    item: str
    phrasing: int
    score: float
    published_score: float | None = None


def canonical(method: str) -> str:
    """Give the name under which a method is known here: `R_EAFT`, `reaft` and `r-eaft` are one."""
    name = method.strip().lower().replace("_", "-").replace(" ", "-")
    return name.replace("reaft", "r-eaft") if name.startswith("reaft") else name


def ordered(a: str, b: str) -> tuple[str, str]:
    """Order a pair so that what is being tried comes first and what it is measured against second."""
    return (b, a) if _rank(a) > _rank(b) else (a, b)


def _rank(method: str) -> int:
    name = canonical(method)
    return 0 if name.startswith("r-eaft") else {"eaft": 2, "sft": 3}.get(name, 1)


@dataclass
class Scores:
    """A table of results, pivoted.

    Attributes:
        values: by arm, task and seed.
        untrained: by task, the model before training.
        falling: tasks of which less is better.
        items: by (arm, task), scores [seeds, items] in the order of `seeds`, if all seeds have them; the phrasings of
            an item are one column.
        odd: what has item-level scores that do not add up to its results.
    """

    seeds: list[int]
    tasks: list[str]
    values: dict[str, dict[str, dict[int, float]]]
    untrained: dict[str, float]
    falling: set[str]
    items: dict[tuple[str, str], Floats] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        return list(self.values)

    def find(self, name: str) -> str | None:
        """Find the arm that is called `name` under any of its spellings."""
        return next((arm for arm in self.values if canonical(arm) == name), None)

    def of(self, arm: str | None, task: str) -> dict[int, float]:
        """Give an arm's values on a task by seed; none if there is no such arm or task."""
        return self.values.get(arm or "", {}).get(task, {})

    def shared(self, a: str, b: str, task: str) -> list[int]:
        """List the seeds that both arms have."""
        return [seed for seed in self.seeds if seed in self.of(a, task) and seed in self.of(b, task)]

    def by_seed(self, arm: str, task: str) -> list[float]:
        """List an arm's values in the order of `seeds`, without those that are missing."""
        of = self.of(arm, task)
        return [of[seed] for seed in self.seeds if seed in of]

    def pair(self, a: str, b: str, task: str) -> tuple[list[float], list[float]]:
        """List the values of both arms for the seeds that they share."""
        seeds = self.shared(a, b, task)
        return [self.of(a, task)[seed] for seed in seeds], [self.of(b, task)[seed] for seed in seeds]

    def item_pair(self, a: str, b: str, task: str) -> tuple[Floats, Floats] | None:
        """Give the item-level scores of two arms that answered the same items with the same seeds."""
        first, second = self.items.get((a, task)), self.items.get((b, task))
        return None if first is None or second is None or first.shape != second.shape else (first, second)


def pivot(results: Iterable[Result], predictions: Iterable[Prediction | ItemScore] = ()) -> Scores:
    """Pivot a flat table.

    Raises:
        UserError: the table holds no trained method, or two values for one method, seed, task and metric.
    """
    rows = list(results)
    metrics: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        metrics[row.task].add(row.metric)
    cells: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    scores = Scores([], [], {}, {}, set())
    for row in rows:
        task = _column(row, metrics[row.task])
        if row.seed in cells[row.method][task]:
            raise UserError(f"two values for method {row.method}, seed {row.seed}, {task}", fix="keep one of them")
        cells[row.method][task][row.seed] = row.value
        if row.higher_is_better is False:
            scores.falling.add(task)
        if canonical(row.method) != UNTRAINED and row.seed not in scores.seeds:
            scores.seeds.append(row.seed)
    for method, by_task in cells.items():
        if canonical(method) == UNTRAINED:
            scores.untrained = {task: sum(by.values()) / len(by) for task, by in by_task.items()}
        else:
            scores.values[method] = {task: dict(by) for task, by in by_task.items()}
    if not scores.values:
        raise UserError("the table holds no trained method, so there is nothing to compare")
    seen = dict.fromkeys(task for by_task in cells.values() for task in by_task)
    scores.tasks = sorted(seen, key=lambda task: TASKS.index(task) if task in TASKS else len(TASKS))
    _add_items(scores, list(predictions))
    if scores.odd:
        scores.notes.append(
            f"Item-level scores that do not add up to the results were left out: {', '.join(scores.odd)}."
        )
    return scores


def _column(row: Result, metrics: set[str]) -> str:
    """Name a column by its task; the metric only where it tells two columns of one task apart."""
    plain = len(metrics) == 1 or row.metric in ("accuracy", row.task)
    return row.task if plain else f"{row.task} {row.metric}"


def _add_items(scores: Scores, predictions: list[Prediction | ItemScore]) -> None:
    strict: dict[tuple[str, str], dict[int, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    published: dict[tuple[str, str], dict[int, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for row in predictions:
        key, item = (row.method, row.task), (row.item, row.phrasing)
        strict[key][row.seed][item] = row.score
        published[key][row.seed][item] = row.score if row.published_score is None else row.published_score
    items: dict[str, list[tuple[str, int]]] = {}
    for (_, task), by_seed in strict.items():
        for answers in by_seed.values():
            items[task] = [i for i in items.get(task, list(answers)) if i in answers]
    for arm in scores.arms:
        for task in scores.tasks:
            found = [
                _matrix(source.get((arm, task), {}), scores.seeds, items.get(task, []))
                for source in (strict, published)
            ]
            _take(scores, arm, task, found, [item for item, _ in items.get(task, [])])


def _matrix(by_seed: Mapping[int, Mapping[tuple[str, int], float]], seeds: list[int], items: list) -> Floats | None:
    if not items or any(seed not in by_seed for seed in seeds):
        return None
    return np.array([[by_seed[seed][item] for item in items] for seed in seeds], dtype=np.float64)


def _take(scores: Scores, arm: str, task: str, found: list[Floats | None], owners: list[str]) -> None:
    """Take the item-level scores that add up to the table's values, whichever scoring made them; else do without."""
    values = scores.by_seed(arm, task)
    for matrix in found:
        if matrix is not None and len(values) == len(matrix) and np.allclose(matrix.mean(axis=1), values, atol=1e-6):
            scores.items[arm, task] = _by_owner(matrix, owners)
            return
    if found[0] is not None:
        scores.odd.append(f"{arm} on {task}")


def _by_owner(matrix: Floats, owners: list[str]) -> Floats:
    """One column an item: phrasings of one fact stand or fall together, so they are no independent draws.

    Scaled so that the mean over columns stays that over all phrasings, also where facts have different numbers of them.
    """
    names = {owner: n for n, owner in enumerate(dict.fromkeys(owners))}
    summed = np.zeros((len(matrix), len(names)))
    np.add.at(summed.T, [names[owner] for owner in owners], matrix.T)
    return summed * (len(names) / len(owners))
