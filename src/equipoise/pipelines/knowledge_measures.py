"""Everything that is measured of a model before and after a knowledge update, written into a cell's folder."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from equipoise.evaluation.drift import Reference, summarise_drift
from equipoise.evaluation.functions import FunctionTask, evaluate_functions, evaluate_functions_stack
from equipoise.evaluation.knowledge import Item, evaluate, evaluate_stack, summarise
from equipoise.evaluation.likelihood import Choices, choices, distractors, preferences
from equipoise.evaluation.tokens import token_rows
from equipoise.journal import write_json, write_jsonl
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.pipelines import general
from equipoise.pipelines.knowledge_data import KnowledgeData, tasks
from equipoise.pipelines.knowledge_work import ASK, COMPLETE, READ, Asking, OnWork
from equipoise.pipelines.settings import KnowledgeUpdateRecipe
from equipoise.records import Prediction, Result

COMPARED = ("correction", "generalisation", "locality")  # tasks whose answers are compared by likelihood, too


class Measures:
    """The measures of one recipe. What they need of the untrained model is taken once, before anything is trained."""

    def __init__(self, recipe: KnowledgeUpdateRecipe, data: KnowledgeData):
        self.recipe, self.data, self.tasks = recipe, data, tasks(data)
        if recipe.evaluation.asks_general(recipe.model.path):
            self.tasks.append(general.task(row.prompt for row in data.updates + data.keep + data.rehearsed))
        self._reference: Reference | None = None
        self._choices: Choices | None = None
        self._asking: dict[bool, Asking] = {}  # of a trained model, and of the untrained one

    def work(self, loaded: Loaded, *, trained: bool) -> dict[str, float]:
        """Return how much work it is to measure a model, by kind; what is needed of the untrained one is taken first.

        A trained model should answer as gold does, another may take all the tokens that it has. Functions that are
        completed take long whatever model completes them.
        """
        self.prepare(loaded)
        asking = self._asking_of(loaded, trained=trained)
        work = {
            ASK: asking.total,
            READ: self._compared() + self._drifted() + asking.of_rows(self.data.updates),
        }
        functions = sum(map(asking.of_function, self.data.functions))
        return {kind: amount for kind, amount in (work | {COMPLETE: functions}).items() if amount}

    def _asking_of(self, loaded: Loaded, *, trained: bool) -> Asking:
        if trained not in self._asking:
            how = self.recipe.evaluation
            talks = not trained and how.reads_prose(loaded.name)
            self._asking[trained] = Asking(loaded.tokenizer, how, self.tasks, len(self.data.functions), talks=talks)
        return self._asking[trained]

    def _compared(self) -> int:
        asked = self._choices.continuations if self._choices else []
        return sum(len(each.prompt) + sum(map(len, each.answers)) for each in asked)

    def _drifted(self) -> int:
        return self._reference.tokens if self._reference else 0

    def prepare(self, loaded: Loaded) -> None:
        """Take what is needed of the untrained model; called again, it does nothing."""
        how = self.recipe.evaluation
        if self._reference is None and how.measures_drift(self.recipe.model.path):
            whole = self.recipe.training.lora is None
            self._reference = Reference(loaded, self.data.texts, copy_head=whole)
        if self._choices is None and how.compares(self.recipe.model.path):
            asked = [task for task in self.tasks if task.name in COMPARED]
            first = [item for task in asked for item in task.items if item.phrasing == 0]
            self._choices = choices(loaded.tokenizer, asked, distractors(first))

    def score(
        self,
        loaded: Loaded,
        folder: Path,
        *,
        method: str,
        seed: int,
        trained: bool = True,
        on_work: OnWork | None = None,
    ) -> list[Prediction]:
        """Measure a model and write the rows of each measure into `folder`; return its answers."""
        tell = self._telling(on_work, self.work(loaded, trained=trained))
        asking, how = self._asking_of(loaded, trained=trained), self.recipe.evaluation
        drift = self._read(loaded, folder, method, seed, tell)  # before asking: it soon shows how fast the machine is
        predictions = evaluate(
            loaded, self.tasks, method=method, seed=seed, how=how, on_answers=_items_told(tell, asking)
        )
        tell(ASK, 0)  # the time that scoring took
        if functions := self.data.functions:
            on_batch = _functions_told(tell, asking, functions)
            predictions += evaluate_functions(loaded, functions, method=method, seed=seed, on_batch=on_batch)
            tell(COMPLETE, 0)
        self._write(folder, predictions, drift)
        return predictions

    def score_stack(
        self,
        loaded: Loaded,
        stack: LoraStack,
        runs: Sequence[tuple[str, int, Path]],
        *,
        on_work: OnWork | None = None,
    ) -> list[list[Prediction]]:
        """Measure every run of a stack, all answering in shared batches, as `score` does each.

        Args:
            runs: method, seed and folder of each.
            on_work: called with shares of the work of all runs.
        """
        work = self.work(loaded, trained=True)
        tell, each = self._telling(on_work, work), self._telling(on_work, work, runs=len(runs))
        asking, how = self._asking_of(loaded, trained=True), self.recipe.evaluation
        named = [(method, seed) for method, seed, _ in runs]
        drifts = [
            self._read(replace(loaded, model=stack.model_of(i)), folder, method, seed, each)
            for i, (method, seed, folder) in enumerate(runs)
        ]
        answers = evaluate_stack(
            stack,
            loaded,
            self.tasks,
            runs=named,
            how=how,
            on_answers=_items_told(tell, asking),
        )
        tell(ASK, 0)
        if functions := self.data.functions:
            on_batch = _functions_told(tell, asking, functions)
            more = evaluate_functions_stack(stack, loaded.tokenizer, functions, runs=named, on_batch=on_batch)
            answers = [mine + theirs for mine, theirs in zip(answers, more, strict=True)]
            tell(COMPLETE, 0)
        for (_, _, folder), mine, drift in zip(runs, answers, drifts, strict=True):
            self._write(folder, mine, drift)
        return answers

    def _telling(self, on_work: OnWork | None, work: Mapping[str, float], runs: int = 1) -> OnWork:
        """Return what passes amounts of work on as shares of the work of so many runs."""
        if on_work is None:
            return lambda kind, amount: None
        return lambda kind, amount: on_work(kind, amount / (runs * work[kind]))

    def _read(self, loaded: Loaded, folder: Path, method: str, seed: int, tell: OnWork) -> list[Result]:
        """Write what needs no answers of the model, and return how far it has moved."""
        folder.mkdir(parents=True, exist_ok=True)
        results: list[Result] = []
        if self._choices is not None and self._choices.items:
            each = self._compared() / (2 * len(self._choices.items))
            compared = preferences(
                loaded, self._choices, method=method, seed=seed, on_batch=lambda count: tell(READ, each * count)
            )
            _rows(folder / "preferences.jsonl", compared)
        if self._reference is not None:
            moved = self._reference.measure(
                loaded.model, method=method, seed=seed, on_batch=lambda tokens: tell(READ, tokens)
            )
            _rows(folder / "drift.jsonl", moved)
            results = summarise_drift(moved)
        read = token_rows(
            loaded,
            self.data.updates,
            max_length=self.recipe.training.max_length,
            on_batch=lambda tokens: tell(READ, tokens),
        )
        write_jsonl(folder / "tokens.jsonl", read)
        return results

    def _write(self, folder: Path, answers: Sequence[Prediction], drift: Sequence[Result]) -> None:
        results = summarise(answers, scoring=self.recipe.evaluation.scoring)
        _rows(folder / "predictions.jsonl", answers)
        write_json(folder / "results.json", [row.model_dump() for row in [*results, *drift]])


def _items_told(tell: OnWork, asking: Asking) -> Callable[[Sequence[Item]], None]:
    return lambda items: tell(ASK, sum(map(asking.of, items)))


def _functions_told(tell: OnWork, asking: Asking, functions: Sequence[FunctionTask]) -> Callable[[Sequence[int]], None]:
    return lambda numbers: tell(COMPLETE, sum(asking.of_function(functions[n]) for n in numbers))


def _rows(path: Path, rows: Iterable) -> None:
    write_jsonl(path, (row.model_dump() for row in rows))
