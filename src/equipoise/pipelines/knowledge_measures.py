"""Everything that is measured of a model before and after a knowledge update, written into a cell's folder."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from equipoise.evaluation.drift import Reference, summarise_drift
from equipoise.evaluation.functions import evaluate_functions, evaluate_functions_stack
from equipoise.evaluation.knowledge import evaluate, evaluate_stack, summarise
from equipoise.evaluation.likelihood import Choices, choices, distractors, preferences
from equipoise.evaluation.tokens import token_rows
from equipoise.journal import write_json, write_jsonl
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.pipelines import general
from equipoise.pipelines.knowledge_data import KnowledgeData, tasks
from equipoise.pipelines.settings import KnowledgeUpdateRecipe
from equipoise.records import Prediction

WIDER = 1  # wider batches of stacked answers took up to 23 GB in 16 bits (LOG.md)
FUNCTION_TOKENS = 120  # of a completed function, for progress
COMPARED = ("correction", "generalisation", "locality")  # tasks whose answers are compared by likelihood, too


class Measures:
    """The measures of one recipe. What they need of the untrained model is taken once, before anything is trained."""

    def __init__(self, recipe: KnowledgeUpdateRecipe, data: KnowledgeData):
        self.recipe, self.data, self.tasks = recipe, data, tasks(data)
        if recipe.evaluation.asks_general(recipe.model.path):
            self.tasks.append(general.task(row.prompt for row in data.updates + data.keep + data.rehearsed))
        self._reference: Reference | None = None
        self._choices: Choices | None = None

    def answer_tokens(self, loaded: Loaded, *, trained: bool) -> float:
        """Return how many tokens a model's answers should have: gold's once trained, before as many as they may.

        Functions that are completed take long whatever model completes them.
        """
        how, count = self.recipe.evaluation, 0
        talks = not trained and how.reads_prose(loaded.name)
        for item in (item for task in self.tasks for item in task.items):
            gold = len(loaded.tokenizer(item.gold).input_ids) + 1
            count += max(how.max_new_tokens, gold) if talks and item.form == "chat" else gold
        return float(count + FUNCTION_TOKENS * len(self.data.functions))

    def _shares(self, on_answers: Callable[[float], None] | None, runs: int) -> Callable[[int], None] | None:
        """Return a function that is called with a number of answers and passes on the share of all that they are."""
        if on_answers is None:
            return None
        total = runs * (sum(len(task.items) for task in self.tasks) + len(self.data.functions))
        return lambda answers: on_answers(answers / total)

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
        on_answers: Callable[[float], None] | None = None,
    ) -> list[Prediction]:
        """Measure a model and write the rows of each measure into `folder`; return its answers."""
        self.prepare(loaded)
        how = self.recipe.evaluation
        predictions = evaluate(
            loaded, self.tasks, method=method, seed=seed, how=how, on_answers=self._shares(on_answers, 1)
        )
        if self.data.functions:
            predictions += evaluate_functions(loaded, self.data.functions, method=method, seed=seed)
        self._write(loaded, folder, predictions, method, seed)
        return predictions

    def score_stack(
        self,
        loaded: Loaded,
        stack: LoraStack,
        runs: Sequence[tuple[str, int, Path]],
        *,
        on_answers: Callable[[float], None] | None = None,
    ) -> list[list[Prediction]]:
        """Measure every run of a stack, all answering in shared batches, as `score` does each.

        Args:
            runs: method, seed and folder of each.
        """
        self.prepare(loaded)
        how, named = self.recipe.evaluation, [(method, seed) for method, seed, _ in runs]
        batch_tokens = how.batch_tokens * WIDER
        answers = evaluate_stack(
            stack,
            loaded,
            self.tasks,
            runs=named,
            how=how,
            batch_tokens=batch_tokens,
            on_answers=self._shares(on_answers, len(runs)),
        )
        if self.data.functions:
            more = evaluate_functions_stack(stack, loaded.tokenizer, self.data.functions, runs=named)
            answers = [mine + theirs for mine, theirs in zip(answers, more, strict=True)]
        for i, ((method, seed, folder), mine) in enumerate(zip(runs, answers, strict=True)):
            self._write(replace(loaded, model=stack.model_of(i)), folder, mine, method, seed)
        return answers

    def _write(self, loaded: Loaded, folder: Path, answers: Sequence[Prediction], method: str, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        results = summarise(answers, scoring=self.recipe.evaluation.scoring)
        _rows(folder / "predictions.jsonl", answers)
        if self._choices is not None:
            _rows(folder / "preferences.jsonl", preferences(loaded, self._choices, method=method, seed=seed))
        if self._reference is not None:
            moved = self._reference.measure(loaded.model, method=method, seed=seed)
            _rows(folder / "drift.jsonl", moved)
            results += summarise_drift(moved)
        write_json(folder / "results.json", [row.model_dump() for row in results])
        longest = self.recipe.training.max_length
        write_jsonl(folder / "tokens.jsonl", token_rows(loaded, self.data.updates, max_length=longest))


def _rows(path: Path, rows: Iterable) -> None:
    write_jsonl(path, (row.model_dump() for row in rows))
