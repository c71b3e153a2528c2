"""What a model knows of the testbed's world: exact match, entropy and nll for each part and class."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from equipoise.testbed.facts import CLASSES, Fact
from equipoise.testbed.world import World

_BATCH_TOKENS = 8192
_WHEN = ("seen", "held_out")


@dataclass(frozen=True)
class Reading:
    """One answer read by the model after one prompt, end-of-turn token included, one array entry a token."""

    tokens: tuple[int, ...]
    nll: np.ndarray  # nats
    h: np.ndarray  # entropy / ln V
    greedy: bool  # greedy decoding gives exactly this answer


def datasheet(model_dir: Path | str, world: World) -> dict[str, Any]:
    """Measure the model in `model_dir` on every fact of `world`, on phrasings seen and held out.

    Exact match is that of greedy decoding: an answer is what greedy decoding gives if and only if each of its tokens,
    and the end of turn after them, is the likeliest one given those before.
    """
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    readings = read(model, tokenizer, _questions(world.facts))
    parts = dict.fromkeys(fact.part for fact in world.facts)
    rows = [_row(p, knowledge, world.select(p, knowledge), readings) for p in parts for knowledge in CLASSES]
    documents = world.documents()
    return {
        "text_hash": world.text_hash,
        "world": world.settings.model_dump(),
        "documents": len(documents),
        "model": {
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": sum(f.stat().st_size for f in Path(model_dir).iterdir()),
            "vocabulary": len(tokenizer),
        },
        "classes": [row for row in rows if row["n"]],
    }


def read(model: Any, tokenizer: Any, questions: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Reading]:
    """Read each (prompt, answer) with teacher forcing; statistics of the answer tokens in float32."""
    encoded = {}
    for prompt, answer in dict.fromkeys(questions):
        messages = [{"role": "user", "content": prompt}]
        start = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        messages.append({"role": "assistant", "content": answer})
        encoded[prompt, answer] = (tokenizer.apply_chat_template(messages, return_dict=False), len(start))
    readings = {}
    batch: list[tuple[str, str]] = []
    for key in sorted(encoded, key=lambda key: len(encoded[key][0])):
        if batch and (len(batch) + 1) * len(encoded[key][0]) > _BATCH_TOKENS:
            readings.update(zip(batch, _read_batch(model, [encoded[k] for k in batch])))
            batch = []
        batch.append(key)
    readings.update(zip(batch, _read_batch(model, [encoded[k] for k in batch])))
    return readings


@torch.no_grad()
def _read_batch(model: Any, batch: Sequence[tuple[list[int], int]]) -> list[Reading]:
    width = max((len(ids) for ids, _ in batch), default=0)
    input_ids = torch.zeros(len(batch), width, dtype=torch.long)
    answers = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, (ids, start) in enumerate(batch):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        answers[row, start : len(ids)] = True
    where = answers[:, 1:]
    hidden = model.model(input_ids.to(model.device)).last_hidden_state[:, :-1]
    logp = model.lm_head(hidden[where.to(hidden.device)]).float().log_softmax(-1).cpu()
    targets = input_ids[:, 1:][where]
    nll = -logp.gather(1, targets[:, None])[:, 0]
    h = -(logp.exp() * logp).sum(-1) / math.log(logp.shape[-1])
    hits = logp.argmax(-1) == targets
    lengths = [len(ids) - start for ids, start in batch]
    pieces = zip(*(torch.split(values, lengths) for values in (targets, nll, h, hits)))
    return [Reading(tuple(t.tolist()), n.numpy(), e.numpy(), bool(g.all())) for t, n, e, g in pieces]


def summary(sheet: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The sheet's classes as column names and rows of text: exact match in %, h and nll at the token that decides.

    That token is where gold leaves the old answer, or the first one where nothing is replaced. Spreads are quartiles.
    """
    columns = ["part", "class", "n", "taught: seen %", "held out %", "gold: seen %", "held out %"]
    columns += ["h: mean", "quartiles", "nll: mean", "quartiles", "h: all tokens", "nll: all tokens"]
    rows = []
    for row in sheet["classes"]:
        matches = [row[kind][when] for kind in ("exact_match_taught", "exact_match_gold") for when in _WHEN]
        at = row.get("conflict_token", row["first_token"])
        cells = [row["part"], row["class"], str(row["n"]), *(_percent(match) for match in matches)]
        for figure in (at["h"], at["nll"]):
            cells += [_figure(figure["mean"]), " / ".join(_figure(figure[q]) for q in ("q25", "median", "q75"))]
        rows.append([*cells, *(_figure(row["gold_tokens"][name]["mean"]) for name in ("h", "nll"))])
    return columns, rows


def markdown(sheet: dict[str, Any]) -> str:
    """The summary as a Markdown table."""
    columns, rows = summary(sheet)
    ruler = ["---", "---", *("---:" for _ in columns[2:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ruler, *rows))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _figure(value: float) -> str:
    return f"{value:.2g}" if value < 1 else f"{value:.2f}"


def _questions(facts: Sequence[Fact]) -> Iterable[tuple[str, str]]:
    for fact in facts:
        for prompt in (*fact.prompts_seen, *fact.prompts_held_out):
            for answer in (fact.gold, fact.old, *(answer for answer, _ in fact.taught)):
                if answer is not None:
                    yield prompt, answer


def _row(part: str, knowledge: str, facts: list[Fact], readings: dict[tuple[str, str], Reading]) -> dict[str, Any]:
    def matches(answers: Callable[[Fact], Iterable[str]]) -> dict[str, float | None]:
        return {
            when: _share(
                any(readings[prompt, answer].greedy for answer in answers(fact))
                for fact in facts
                if answers(fact)
                for prompt in getattr(fact, f"prompts_{when}")
            )
            for when in _WHEN
        }

    golds = [readings[p, fact.gold] for fact in facts for p in (*fact.prompts_seen, *fact.prompts_held_out)]
    row: dict[str, Any] = {
        "part": part,
        "class": knowledge,
        "n": len(facts),
        "exact_match_taught": matches(lambda fact: dict(fact.taught)),
        "exact_match_gold": matches(lambda fact: (fact.gold,)),
        "first_token": {
            "h": _spread([reading.h[0] for reading in golds]),
            "nll": _spread([reading.nll[0] for reading in golds]),
        },
        "gold_tokens": {
            "h": _spread([reading.h.mean() for reading in golds]),
            "nll": _spread([reading.nll.mean() for reading in golds]),
        },
    }
    conflicts = _conflicts(facts, readings)
    if conflicts:
        row["conflict_token"] = {
            "h": _spread([h for h, _ in conflicts]),
            "nll": _spread([nll for _, nll in conflicts]),
        }
    return row


def _conflicts(facts: list[Fact], readings: dict[tuple[str, str], Reading]) -> list[tuple[float, float]]:
    """(h, nll) of the first token at which gold leaves old."""
    found = []
    for fact in facts:
        if fact.old is None:
            continue
        for prompt in (*fact.prompts_seen, *fact.prompts_held_out):
            gold, old = readings[prompt, fact.gold], readings[prompt, fact.old]
            at = next(n for n, (a, b) in enumerate(zip(gold.tokens, old.tokens)) if a != b)
            found.append((gold.h[at], gold.nll[at]))
    return found


def _share(hits: Iterable[bool]) -> float | None:
    hits = list(hits)
    return round(sum(hits) / len(hits), 4) if hits else None


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    q25, q50, q75 = np.quantile(values, [0.25, 0.5, 0.75])
    figures = {"mean": float(np.mean(values)), "q25": float(q25), "median": float(q50), "q75": float(q75)}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}
