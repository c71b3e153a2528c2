"""What training changed, in a sentence for each arm and task, counted against what the untrained model knew."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from equipoise.protocols.markdown import one_line
from equipoise.protocols.wording import count, number
from equipoise.records import IN_NATS, KEEP_TASKS

NAMED = 3  # of the lost answers; all of them stand in the report
LONGEST_PROMPT, LONGEST_ANSWER = 70, 40
CUT_SHARE = 0.02  # of answers; fewer that are cut off are not worth a note
# What an arm did on a task, where none and where some of it was right before training.
FROM_NOTHING = {
    "correction": "corrected {n} updates, asked as trained",
    "generalisation": "corrected {n} of the questions in phrasings that it was not trained on",
}
OF_UPDATES = {
    "correction": "answers {n} updates right, asked as trained",
    "generalisation": "answers {n} questions about updates right, in phrasings that it was not trained on",
    "efficacy": "prefers the new answer, by likelihood, for {n} updates, asked as trained",
    "paraphrase efficacy": "prefers the new answer, by likelihood, in {n} held-out phrasings",
}
OF_KEPT = {
    "locality": "keeps {n} answers about facts to keep that it knew",
    "preference kept": "still prefers the right answer, by likelihood, for {n} facts to keep for which it did",
    "retention": "keeps {n} unrelated skills that it had",
    "general": "keeps {n} answers to general questions that it knew",
    "functions": "keeps {n} functions that it could complete",
}
ORDER = ("correction", "generalisation", *OF_KEPT)  # answers come before likelihoods and nats
TRAINED_ON = "; they were trained on too, so this says nothing about other facts"


def before_and_after(
    analysis: Mapping[str, Any], changes: Iterable[Mapping[str, Any]], *, rehearsed: bool = False
) -> dict[str, list[str]]:
    """Say for each arm what it learned and lost, in total and by task: the findings of a run without claims.

    Args:
        changes: rows as `kept.changes` lists them, to name what was lost.
        rehearsed: whether the facts to keep were trained on too.
    """
    rows, found = list(changes), {}
    for arm, by_task in analysis["arms"].items():
        mine = [row for row in rows if row["method"] == arm]
        sentences = []
        for task in sorted(analysis["tasks"], key=lambda task: ORDER.index(task) if task in ORDER else len(ORDER)):
            if task in by_task:
                caveat = TRAINED_ON if rehearsed and task == "locality" else ""
                sentences.append(f"{arm} {_sentence(analysis, task, by_task[task]['mean'], mine)}{caveat}.")
        found[arm] = [*_in_total(arm, analysis), *sentences]
    return found


def _in_total(arm: str, analysis: Mapping[str, Any]) -> list[str]:
    """Say in one sentence how much an arm learned and how many of all answers that were known it lost."""
    known, by_task = analysis.get("known") or {}, analysis["arms"][arm]
    kept = [task for task in OF_KEPT if task in by_task and task in known and task != "preference kept"]
    right = sum(known[task]["right"] for task in kept)
    if "correction" not in by_task or "correction" not in known or not right:
        return []
    learned = round(by_task["correction"]["mean"] * known["correction"]["asked"], 1)
    lost = round(sum((1 - by_task[task]["mean"]) * known[task]["right"] for task in kept), 1)
    over = "" if len(analysis["seeds"]) == 1 else f", on average over {count(len(analysis['seeds']), 'seed')}"
    return [
        f"In total, {arm} gives the new answer to {learned:g} of {known['correction']['asked']} updates and has lost "
        f"{lost:g} of the {right} other answers that the untrained model had right ({', '.join(kept)}){over}."
    ]


def unmeasured(analysis: Mapping[str, Any]) -> list[str]:
    """Say of each task that cannot be measured why, and what to ask instead."""
    return [f"{task} cannot be measured here: {reason}." for task, reason in analysis["cannot_tell"].items()]


def cut_notes(shares: Mapping[str, float]) -> list[str]:
    """Say whose answers ran out of tokens before they ended, where that happened to more than a few.

    Args:
        shares: as `kept.cut_off` counts them.
    """
    cut = [f"{method} {number(share, share=True)}" for method, share in shares.items() if share > CUT_SHARE]
    if not cut:
        return []
    return [
        f"Answers cut off at the token limit: {', '.join(cut)}. Some of them might have become right; raise "
        "evaluation.max_new_tokens to give answers in prose more room."
    ]


def known_of(analysis: Mapping[str, Any], task: str) -> str:
    """Name how much of a task to keep the untrained model knew, as `23 of 60`; nothing for other tasks."""
    found = (analysis.get("known") or {}).get(task)
    return f"{found['right']} of {found['asked']}" if found and task in KEEP_TASKS else ""


def _sentence(analysis: Mapping[str, Any], task: str, mean: float, rows: Sequence[Mapping[str, Any]]) -> str:
    before = analysis["untrained"].get(task)
    if task == "drift":
        return (
            f"drifted from the untrained model by {mean:.3f} nats per token of held-out text "
            "(forward KL; 0 means unchanged, less is better)"
        )
    if task in IN_NATS:
        was = "" if before is None else f", against {before:.3f} before training"
        return f"predicts held-out text at {mean:.3f} nats per token{was} (less is better)"
    known = (analysis.get("known") or {}).get(task)
    seeds = len(analysis["seeds"])
    if known is None:
        return f"has {number(mean, share=True)} of {task} right"
    if task in KEEP_TASKS:
        said = _counted(OF_KEPT[task], mean, known["right"], seeds, "the ")
        doubt = ", too few to tell" if task in analysis["cannot_tell"] else ""
        return f"{said}{doubt}{_lost([row for row in rows if row['task'] == task], seeds)}"
    if not before and task in FROM_NOTHING:
        return _counted(FROM_NOTHING[task], mean, known["asked"], seeds)
    template = OF_UPDATES.get(task, "answers {n} questions on " + task.replace("{", "(").replace("}", ")") + " right")
    return f"{_counted(template, mean, known['asked'], seeds)}; {known['right']} before training"


def _counted(template: str, mean: float, n: int, seeds: int, the: str = "") -> str:
    over = "" if seeds == 1 else f" on average over {count(seeds, 'seed')}"
    share = number(mean, share=True)
    return template.format(n=f"{round(mean * n, 1):g} of {the}{n}") + f" ({share}{over})"


def _lost(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """Name the first answers that were lost, and say how many more there are."""
    lost = {(row["item"], row["phrasing"]): row for row in rows if row["change"] == "lost"}
    if not lost:
        return ""
    named = [_named(row) for row in list(lost.values())[:NAMED]]
    more = [f"{len(lost) - NAMED} more"] if len(lost) > NAMED else []
    return f"; lost{' with some seed' if seeds > 1 else ''}: {', '.join([*named, *more])}"


def _named(row: Mapping[str, Any]) -> str:
    asked = f"“{_short(row['prompt'], LONGEST_PROMPT)}”"
    if len(one_line(row["gold"])) > LONGEST_ANSWER:
        return asked
    return f"{asked} ({one_line(row['gold'])} became {_short(row['after'], LONGEST_ANSWER) or 'nothing'})"


def _short(text: str, longest: int) -> str:
    line = one_line(text)
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"
