"""From questions to tagged rows in four splits: the model answers, its answers are graded, tagged and set apart."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.console import progress, say, warn
from equipoise.data.formatting import render_prompt
from equipoise.data.jsonl import BadRow
from equipoise.data.questions import load_questions
from equipoise.data.splits import balance, split_groups, subsample
from equipoise.data.tagged import load_tagged, split_tagged_response, tag
from equipoise.errors import UserError
from equipoise.journal import Journal, write_json, write_jsonl
from equipoise.metrics.answers import extract, grade
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded
from equipoise.pipelines.confidence_settings import ConfidenceRecipe, DomainSettings
from equipoise.records import Message, Question, TaggedAnswer
from equipoise.testbed import questions as testbed

TESTBED = "testbed:"
SPLITS = ("train", "validation", "calibration", "test")
ROWS_A_WRITE = 256  # answers between two waits for the disk


@dataclass(frozen=True)
class Sources:
    """The questions of a recipe, or the tagged rows that it starts from, with what was left out."""

    questions: list[Question]
    tagged: dict[tuple[str, str], TaggedAnswer] | None  # by (domain, id), where a ready file takes generation's place
    notes: list[str]
    dropped: list[dict[str, str]]
    hashes: dict[str, str]


@dataclass(frozen=True)
class Answered:
    """A question, what the untrained model said to it, tagged, and the log-probability of that where it is known."""

    question: Question
    row: TaggedAnswer
    said: str  # the answer without its token
    logprob: float | None

    @property
    def correct(self) -> bool:
        return bool(self.row.correct)


def load_sources(recipe: ConfidenceRecipe) -> Sources:
    """Read the questions of every domain, or the file of tagged rows.

    Raises:
        UserError: a source cannot be read, a domain has none, or one id names two questions.
    """
    if recipe.data.tagged is not None:
        return _ready(recipe, recipe.data.tagged)
    questions: list[Question] = []
    notes, dropped, hashes = [], [], {}
    for name, domain in recipe.domains.items():
        if domain.source is None:
            raise UserError(
                f"domain {name} has no source of questions",
                where=f"domains.{name}.source",
                fix="give a JSONL file, hub:NAME:SPLIT or testbed:PART, or data.tagged for rows tagged already",
            )
        if domain.source.startswith(TESTBED):
            found, hashes[name] = _testbed_questions(domain.source, name)
        else:
            loaded = load_questions(
                domain.source, name, domain.answers, max_bad_share=recipe.data.max_bad_share, limit=domain.limit
            )
            found, hashes[name] = loaded.questions, loaded.sha256
            notes += [f"{name}: {note}" for note in loaded.notes]
            dropped += [{"where": f"{domain.source}:{row.line}", "reason": row.reason} for row in loaded.dropped]
        questions += [_with_instruction(question, domain) for question in found[: domain.limit]]
    return Sources(questions, None, notes, dropped, hashes)


def _testbed_questions(source: str, name: str) -> tuple[list[Question], str]:
    part = source.removeprefix(TESTBED)
    if part not in testbed.DOMAINS:
        raise UserError(
            f"the testbed has no questions {part!r}", where=source, fix=f"one of {', '.join(testbed.DOMAINS)}"
        )
    found = testbed.load(part)
    text = json.dumps([question.model_dump() for question in found])
    return [q.model_copy(update={"dataset": name}) for q in found], hashlib.sha256(text.encode()).hexdigest()


def _with_instruction(question: Question, domain: DomainSettings) -> Question:
    if domain.instruction is None:
        return question
    return question.model_copy(update={"question": f"{question.question}\n{domain.instruction}"})


def _ready(recipe: ConfidenceRecipe, path: str) -> Sources:
    """Take tagged rows as they are. What an answer is graded by is the row's gold, or what its own tag says of it."""
    tokens = {name: (domain.confident, domain.uncertain) for name, domain in recipe.domains.items()}
    loaded = load_tagged(path, tokens, max_bad_share=recipe.data.max_bad_share)
    questions, rows = [], {}
    for row in loaded.rows:
        said, mark = split_tagged_response(row.tagged_response, tokens)
        gold = row.answer or _implied(said, mark == "C", recipe.domains[row.dataset].answers)
        question = Question(
            id=str(row.id),
            question=row.question,
            context=row.context,
            dataset=row.dataset,
            answer=gold or "",
            group=row.group,
            meta={} if gold else {"ungraded": True},
        )
        questions.append(question)
        rows[_key(question)] = row
    dropped = [{"where": f"{path}:{row.line}", "reason": row.reason} for row in loaded.dropped]
    ungraded = sum("ungraded" in question.meta for question in questions)
    notes = list(loaded.notes)
    if ungraded:
        notes.append(f"{ungraded} rows do not say what the right answer is: they are trained on, but not measured on")
    return Sources(questions, rows, notes, dropped, {"tagged": loaded.sha256})


def _implied(said: str, confident: bool, kind: str) -> str | None:
    """The right answer by a row's own tag: what was said, if it was right, and of two answers the other, if not."""
    found = extract(said, kind)
    if confident:
        return found or (said if kind == "text" else None)
    return {"yes": "no", "no": "yes"}.get(found or "") if kind == "yes-no" else None


def answer_questions(
    loaded: Callable[[], Loaded], recipe: ConfidenceRecipe, questions: Sequence[Question], path: Path, label: str
) -> dict[tuple[str, str], dict[str, Any]]:
    """Answer `questions` greedily into the journal at `path`, going on where it ends; return its rows by question.

    `loaded` is called for the model only if an answer is missing.
    """
    with Journal(path, key=lambda row: (row["domain"], row["id"])) as journal:
        done = {(row["domain"], row["id"]) for row in journal.rows}
        todo = [question for question in questions if _key(question) not in done]
        if done and todo:
            say(f"{len(done)} answers are there already; {len(todo)} to go")
        if todo:
            _answer(loaded(), recipe, todo, journal, label)
        return {(row["domain"], row["id"]): row for row in journal.rows}


def _answer(
    loaded: Loaded, recipe: ConfidenceRecipe, questions: Sequence[Question], journal: Journal, label: str
) -> None:
    options = recipe.data
    prompts = [render_prompt(loaded.tokenizer, [Message(role="user", content=q.prompt)]) for q in questions]
    # alike in length, so that a batch wastes little on padding
    order = sorted(range(len(questions)), key=lambda i: -len(prompts[i]))
    with progress(len(order), label) as bar:
        for start in range(0, len(order), ROWS_A_WRITE):
            some = order[start : start + ROWS_A_WRITE]
            answers = generate(
                loaded.model,
                loaded.tokenizer,
                [prompts[i] for i in some],
                max_new_tokens=options.max_new_tokens,
                batch_tokens=options.batch_tokens,
            )
            texts = loaded.tokenizer.batch_decode([answer.ids for answer in answers], skip_special_tokens=True)
            journal.extend(
                {
                    "domain": questions[i].dataset,
                    "id": questions[i].id,
                    "output": text,
                    "logprob": answer.logprob,
                    "tokens": len(answer.ids),
                }
                for i, answer, text in zip(some, answers, texts)
            )
            bar.advance(len(some))


def _key(question: Question) -> tuple[str, str]:
    return question.dataset, question.id


def tag_answers(
    recipe: ConfidenceRecipe, sources: Sources, answers: dict[tuple[str, str], dict[str, Any]]
) -> tuple[list[Answered], list[dict[str, str]]]:
    """Grade each answer and tag it; answers that cannot be tagged are listed with their reason.

    Raises:
        UserError: more than `data.max_bad_share` of the answers cannot be tagged.
    """
    if sources.tagged is not None:
        tokens = {name: (domain.confident, domain.uncertain) for name, domain in recipe.domains.items()}
        rows = [(question, sources.tagged[_key(question)]) for question in sources.questions]
        return [Answered(q, row, split_tagged_response(row.tagged_response, tokens)[0], None) for q, row in rows], []
    model = model_name(recipe)
    out: list[Answered] = []
    dropped: list[dict[str, str]] = []
    for question in sources.questions:
        domain, said = recipe.domains[question.dataset], answers[_key(question)]
        try:
            correct = graded(said["output"], question, domain.answers)
            row = tag(question, said["output"], correct, domain.confident, domain.uncertain, model)
        except BadRow as bad:
            dropped.append({"where": f"{question.dataset} {question.id}", "reason": str(bad)})
            continue
        out.append(Answered(question, row, said["output"].strip(), said["logprob"]))
    if len(dropped) > recipe.data.max_bad_share * len(sources.questions):
        raise UserError(
            f"{len(dropped)} of {len(sources.questions)} answers cannot be tagged, first {dropped[0]['where']}: "
            f"{dropped[0]['reason']}",
            fix="raise data.max_new_tokens, look at answers.jsonl, or raise data.max_bad_share",
            docs="docs/confidence-tokens.md#dropped-rows",
        )
    return out, dropped


def graded(text: str, question: Question, kind: str) -> bool:
    """Tell whether `text` answers the question rightly."""
    return grade(text, answer=question.answer, accepted=question.accepted, options=question.options, kind=kind).correct


def split(recipe: ConfidenceRecipe, rows: Sequence[Answered]) -> dict[str, list[Answered]]:
    """Set rows apart by question and fact; the classes of the train split are cut to their limits.

    Raises:
        UserError: a split that was asked for is empty.
    """
    by_key = {_key(row.question): row for row in rows}
    parts = questions_of(recipe, [row.question for row in rows])
    out = {name: [by_key[_key(question)] for question in parts[name]] for name in SPLITS}
    options = recipe.data
    empty = [name for name in SPLITS if not out[name] and (name == "train" or getattr(options, name) > 0)]
    if empty:
        raise UserError(
            f"the split {empty[0]} is empty: there are {len(rows)} rows",
            where=f"data.{empty[0]}",
            fix="give more questions, or a larger share",
        )
    by_row = {id(row.row): row for row in out["train"]}
    kept = subsample(
        [row.row for row in out["train"]],
        max_confident=options.max_confident,
        max_uncertain=options.max_uncertain,
        seed=0,
    )
    out["train"] = [by_row[id(row)] for row in kept]
    return out


def questions_of(recipe: ConfidenceRecipe, questions: Sequence[Question]) -> dict[str, list[Question]]:
    """The questions of each split; which one a question falls into hangs on its group alone, not on a run's seed."""
    shares = {name: getattr(recipe.data, name) for name in SPLITS[1:]}
    return split_groups(questions, {"train": 1 - sum(shares.values()), **shares}, recipe.data.split_seed)


def write_data(
    recipe: ConfidenceRecipe,
    folder: Path,
    sources: Sources,
    splits: dict[str, list[Answered]],
    rows: Sequence[Answered],
    dropped: list[dict[str, str]],
) -> None:
    """Leave the tagged rows, the splits and an account of them in the run folder."""
    name = model_name(recipe)
    write_jsonl(folder / "tagged" / name / f"{name}_all_tagged.jsonl", (row.row.model_dump() for row in rows))
    for part, members in splits.items():
        write_jsonl(folder / "splits" / f"{part}.jsonl", (row.row.model_dump() for row in members))
    counts = {
        domain: {part: sum(row.question.dataset == domain for row in members) for part, members in splits.items()}
        for domain in recipe.domains
    }
    shares = balance([row.row for row in rows])
    for domain, share in shares.items():
        say(f"{domain}: {share['n']} answers, {share['share_confident']:.1%} of them right; {_sizes(counts[domain])}")
        if not 0 < share["share_confident"] < 1:
            warn(f"every answer in {domain} is of one class, so there is nothing to learn there")
    all_dropped = sources.dropped + dropped
    if all_dropped:
        reasons = Counter(row["reason"] for row in all_dropped).most_common(3)
        say(f"{len(all_dropped)} rows left out: " + "; ".join(f"{count} x {reason}" for reason, count in reasons))
    account = {"counts": counts, "balance": shares, "dropped": all_dropped, "notes": sources.notes}
    write_json(folder / "data.json", account)


def _sizes(counts: dict[str, int]) -> str:
    return ", ".join(f"{part} {count}" for part, count in counts.items())


def model_name(recipe: ConfidenceRecipe) -> str:
    """The model's name as a folder may bear it: the last part of its path."""
    return re.sub(r"[^\w.+-]+", "-", recipe.model.path.rstrip("/\\").rpartition("/")[2]).strip(".-") or "model"
