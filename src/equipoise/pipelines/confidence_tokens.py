"""Confidence tokens from questions to evidence: tagged answers, one training run a seed, what the tokens are worth."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from equipoise.console import say, warn
from equipoise.data.confidence import existing_ids, render_tagged
from equipoise.data.formatting import Formatted
from equipoise.errors import UserError
from equipoise.evaluation.confidence import ask, p_existing
from equipoise.evaluation.confidence_analysis import analyse, flat_results
from equipoise.evaluation.confidence_metrics import summarise
from equipoise.evaluation.watch import Watch, console_block
from equipoise.journal import Journal, read_journal, write_atomic, write_json
from equipoise.models.loading import Loaded, load_model, pick_device
from equipoise.models.settings import ModelSettings
from equipoise.models.tokens import TokenIds, add_tokens
from equipoise.models.upload import push
from equipoise.pipelines import confidence_data as data
from equipoise.pipelines.confidence_card import model_card
from equipoise.pipelines.confidence_data import Answered
from equipoise.pipelines.confidence_settings import ConfidenceRecipe
from equipoise.records import Question
from equipoise.runs import Run
from equipoise.training.best import Best
from equipoise.training.settings import ObjectiveSettings
from equipoise.training.sft import train

BEST = {
    "best_accuracy": Best("overall/validation_accuracy", higher_is_better=True),
    "best_calibration": Best("overall/calibration_error", higher_is_better=False),
}
Row = dict[str, Any]
StrongAnswers = dict[tuple[str, str], bool] | None


@dataclass
class Prepared:
    """Rows in their splits, and the model that is loaded when it is first asked for."""

    splits: dict[str, list[Answered]]
    loaded: Callable[[], Loaded]

    def questions(self, split: str, *, limit: int | None = None) -> list[Question]:
        """The questions of a split that can be graded, at most `limit` of each domain."""
        taken: dict[str, int] = {}
        out = []
        for row in self.splits[split]:
            name = row.question.dataset
            if "ungraded" in row.question.meta or (limit is not None and taken.get(name, 0) >= limit):
                continue
            taken[name] = taken.get(name, 0) + 1
            out.append(row.question)
        return out


def run(recipe: ConfidenceRecipe, folder: Path, *, until: str = "end") -> dict[str, Any] | None:
    """Run, or go on with, `recipe` in `folder`: answers, tagged rows, training, analysis; return the analysis.

    Args:
        until: "answers" or "data" stop after that stage and return None.

    Raises:
        UserError: the folder holds another run, or an input is at fault.
    """
    sources = data.load_sources(recipe)
    loaded = cache(lambda: load_model(recipe.model))
    if not (folder / "manifest.json").exists():
        loaded()  # one that cannot be loaded must not leave a folder that holds "another run" once that is mended
    device = "several" if recipe.model.device_map is not None else str(pick_device(recipe.model.device))
    Run.open_or_create(folder, recipe, data_hashes=sources.hashes, seed=recipe.seeds[0], device=device)
    answers = {}
    if sources.tagged is None:
        answers = data.answer_questions(loaded, recipe, sources.questions, folder / "answers.jsonl", "answers")
    if until == "answers":
        return None
    rows, dropped = data.tag_answers(recipe, sources, answers)
    prepared = Prepared(data.split(recipe, rows), loaded)
    data.write_data(recipe, folder, sources, prepared.splits, rows, dropped)
    if until == "data":
        return None
    if not prepared.questions("test"):
        raise UserError(
            "there is no test question whose right answer is known, so nothing could be measured",
            where="data.test",
            fix="give a larger share, or rows with an answer",
        )
    strong = _strong_answers(recipe, prepared, folder)
    with Journal(folder / "seeds.jsonl", key=lambda row: row["seed"]) as seeds:
        done = {row["seed"] for row in seeds.rows}
        todo = [seed for seed in recipe.seeds if seed not in done]
        for seed in todo:
            seeds.append(_run_seed(recipe, prepared, folder, seed, last=seed == todo[-1]))
        notes = [note for row in seeds.rows for note in row["warnings"]]
    return _finish(recipe, prepared, folder, strong, notes)


def evaluate(recipe: ConfidenceRecipe, model: ModelSettings) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """Ask a trained model the test questions of `recipe`, and measure it.

    Raises:
        UserError: the model does not know the recipe's tokens, or a source cannot be read.
    """
    questions = data.questions_of(recipe, data.load_sources(recipe).questions)["test"]
    loaded = load_model(model)
    rows = measure(recipe, loaded, known_ids(recipe, loaded), [q for q in questions if "ungraded" not in q.meta])
    options = recipe.validation
    return rows, summarise(rows, beta=options.beta, p=options.p, bins=options.bins)


def place_of(recipe: ConfidenceRecipe, folder: Path, seed: int) -> Path:
    """Where a seed's training lies: the run folder itself, or a folder of its own where there are several."""
    return folder if len(recipe.seeds) == 1 else folder / f"seed-{seed}"


def _run_seed(recipe: ConfidenceRecipe, prepared: Prepared, folder: Path, seed: int, *, last: bool) -> Row:
    """Train with one seed, then ask the calibration and test questions; return the row that marks it as done."""
    started = time.perf_counter()
    place = place_of(recipe, folder, seed)
    say(f"seed {seed}: training in {place}")
    loaded = prepared.loaded()
    ids = token_ids(recipe, loaded)
    watch = Watch()
    result = train(
        loaded,
        render(recipe, loaded, ids, prepared.splits["train"]),
        objective=ObjectiveSettings(name="sft"),
        settings=recipe.training,
        folder=place,
        seed=seed,
        token_rows=new_rows(recipe, ids),
        validate=_validation(recipe, prepared, ids, loaded, place, watch) if prepared.questions("validation") else None,
        eval_steps=recipe.validation.eval_steps,
        keep_best=BEST,
        on_step=lambda row: watch.loss(row["step"], row["loss"]),
        keep_base=not last,
        checkpoints_in=place,
    )
    trained = replace(loaded, model=result.model)
    for split, name in (("calibration", "calibration.jsonl"), ("test", "predictions.jsonl")):
        rows = measure(recipe, trained, ids, prepared.questions(split))
        _append_new(folder / name, [{"seed": seed, "split": split, **row} for row in rows])
    return {
        "seed": seed,
        "steps": result.steps,
        "seconds": round(time.perf_counter() - started, 3),
        "dropped": len(result.dropped),
        "warnings": watch.standing,
    }


def tokens(recipe: ConfidenceRecipe) -> dict[str, tuple[str, str]]:
    """The confident and the uncertain token of each domain."""
    return {name: (domain.confident, domain.uncertain) for name, domain in recipe.domains.items()}


def token_ids(recipe: ConfidenceRecipe, loaded: Loaded) -> dict[str, TokenIds]:
    """Teach model and tokenizer the tokens, if they do not have them; in existing-token mode, find those there are."""
    if recipe.mode == "existing-token":
        pair = existing_ids(loaded.tokenizer)
        return dict.fromkeys(recipe.domains, pair)
    return add_tokens(loaded.model, loaded.tokenizer, tokens(recipe))


def render(recipe: ConfidenceRecipe, loaded: Loaded, ids: dict[str, TokenIds], rows: Sequence[Answered]) -> Formatted:
    """Token ids and labels of tagged rows, with the loss where the mode wants it."""
    return render_tagged(
        loaded.tokenizer,
        [answered.row for answered in rows],
        ids,
        tokens=tokens(recipe),
        mode=recipe.mode,
        max_length=recipe.training.max_length,
        max_bad_share=recipe.training.max_bad_share,
    )


def new_rows(recipe: ConfidenceRecipe, ids: dict[str, TokenIds]) -> list[int]:
    """The tokens whose embeddings train: none where the vocabulary's own words are used."""
    return [] if recipe.mode == "existing-token" else sorted({i for pair in ids.values() for i in pair})


def known_ids(recipe: ConfidenceRecipe, loaded: Loaded) -> dict[str, TokenIds]:
    """The ids of the tokens that a trained model has.

    Raises:
        UserError: it has them not, so it was not trained by this recipe.
    """
    if recipe.mode == "existing-token":
        return token_ids(recipe, loaded)
    known = loaded.tokenizer.added_tokens_encoder
    missing = next((token for pair in tokens(recipe).values() for token in pair if token not in known), None)
    if missing is not None:
        raise UserError(
            f"{loaded.name} does not know the token {missing}",
            fix="name the run, or one of final, best_accuracy and best_calibration in it",
        )
    return {name: TokenIds(known[c], known[u]) for name, (c, u) in tokens(recipe).items()}


def measure(
    recipe: ConfidenceRecipe, loaded: Loaded, ids: dict[str, TokenIds], questions: Sequence[Question]
) -> list[Row]:
    """Ask `questions` and grade what is said, with the confidence at the end of each answer."""
    return ask(
        loaded,
        questions,
        {name: domain.answers for name, domain in recipe.domains.items()},
        ids,
        mode=recipe.mode,
        max_new_tokens=recipe.data.max_new_tokens,
        batch_tokens=recipe.data.batch_tokens,
    )


def _validation(
    recipe: ConfidenceRecipe,
    prepared: Prepared,
    ids: dict[str, TokenIds],
    loaded: Loaded,
    place: Path,
    watch: Watch,
) -> Callable[[Any, int], dict[str, float]]:
    """What training calls after each epoch and every `eval_steps`: ask, measure, show, write the reliability table."""
    questions = prepared.questions("validation", limit=recipe.validation.samples)
    options = recipe.validation
    epoch = steps_per_epoch(recipe, len(prepared.splits["train"]))

    def validate(model: Any, step: int) -> dict[str, float]:
        rows = measure(recipe, replace(loaded, model=model), ids, questions)
        summary = summarise(rows, beta=options.beta, p=options.p, bins=options.bins)
        whole = step % epoch == 0
        name = f"reliability_epoch_{step // epoch}.json" if whole else f"reliability_step_{step}.json"
        write_json(place / name, {"step": step, "epoch": step / epoch, **summary})
        say(console_block(summary, f"validation after {f'epoch {step // epoch}' if whole else f'step {step}'}"))
        watch.validation(summary)
        return {"epoch": step / epoch} | {
            f"{task}/{measure}": value
            for task, numbers in summary.items()
            for measure, value in numbers.items()
            if isinstance(value, int | float)
        }

    return validate


def steps_per_epoch(recipe: ConfidenceRecipe, rows: int) -> int:
    """Optimizer steps of one epoch over `rows` examples."""
    settings = recipe.training
    return math.ceil(math.ceil(rows / settings.batch_size) / settings.gradient_accumulation)


def _append_new(path: Path, rows: Sequence[Row]) -> None:
    """Journal rows; those of a seed that was cut off here are there already."""
    with Journal(path, key=lambda row: (row["seed"], row["domain"], row["id"])) as journal:
        known = {(row["seed"], row["domain"], row["id"]) for row in journal.rows}
        journal.extend(row for row in rows if (row["seed"], row["domain"], row["id"]) not in known)


def _finish(
    recipe: ConfidenceRecipe, prepared: Prepared, folder: Path, strong: StrongAnswers, notes: list[str]
) -> dict[str, Any]:
    """Analyse what all seeds left, and write it."""
    analysis, calibrators = analyse(
        read_journal(folder / "predictions.jsonl").rows,
        read_journal(folder / "calibration.jsonl").rows,
        _untrained(recipe, prepared, folder),
        selective=recipe.selective,
        validation=recipe.validation,
        strong=strong,
        warnings=notes,
    )
    write_json(folder / "calibrators.json", calibrators)
    write_json(folder / "results.json", flat_results(analysis))
    write_json(folder / "confidence.json", analysis)
    write_atomic(folder / "MODEL_CARD.md", model_card(recipe, analysis))
    if recipe.push_to_hub is not None:
        push(
            recipe.push_to_hub,
            place_of(recipe, folder, recipe.seeds[0]) / "final",
            card=folder / "MODEL_CARD.md",
            again="the run itself is complete, and the same command tries the upload again",
        )
    return analysis


def _untrained(recipe: ConfidenceRecipe, prepared: Prepared, folder: Path) -> dict[str, list[Row]]:
    """The untrained model's answers to the test questions, with the confidence of each baseline as p."""
    rows = [_before(answered) for answered in prepared.splits["test"] if "ungraded" not in answered.question.meta]
    out = {"untrained": rows}
    if not recipe.validation.baselines:
        return out
    if all(row["logprob"] is not None for row in rows):
        out["sequence-logprob"] = [row | {"p": min(1.0, math.exp(row["logprob"]))} for row in rows]
    with Journal(folder / "existing_token.jsonl", key=lambda row: (row["domain"], row["id"])) as journal:
        if len(journal.rows) < len(rows):
            known = {(row["domain"], row["id"]) for row in journal.rows}
            todo = [row for row in rows if (row["domain"], row["id"]) not in known]
            untrained = load_model(recipe.model)  # as it came: what was trained may be the copy in memory
            try:
                existing_ids(untrained.tokenizer)
            except UserError as error:
                warn(f"no baseline of the existing token: {error.what}")
                return out
            found = p_existing(
                untrained,
                [row["prompt"] for row in todo],
                [row["output"] for row in todo],
                batch_tokens=recipe.data.batch_tokens,
            )
            journal.extend({"domain": row["domain"], "id": row["id"], "p": p} for row, p in zip(todo, found))
        p = {(row["domain"], row["id"]): row["p"] for row in journal.rows}
    out["existing-token"] = [row | {"p": p[row["domain"], row["id"]]} for row in rows]
    return out


def _before(answered: Answered) -> Row:
    question = answered.question
    return {
        "id": question.id,
        "domain": question.dataset,
        "group": question.group or question.id,
        "prompt": question.prompt,
        "output": answered.said,
        "correct": answered.correct,
        "logprob": answered.logprob,
    }


def _strong_answers(recipe: ConfidenceRecipe, prepared: Prepared, folder: Path) -> StrongAnswers:
    """Whether the stronger model, if there is one, answers each test question rightly."""
    if recipe.strong is None:
        return None
    strong, questions = recipe.strong, prepared.questions("test")
    path = folder / "strong_answers.jsonl"
    answers = data.answer_questions(lambda: load_model(strong), recipe, questions, path, "the strong model's answers")
    return {
        (q.dataset, q.id): data.graded(answers[q.dataset, q.id]["output"], q, recipe.domains[q.dataset].answers)
        for q in questions
    }
