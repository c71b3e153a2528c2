"""How well a model finds the testbed's entities: F1 by domain and difficulty, and what its own labels are worth."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.extraction import pairs
from equipoise.data.formatting import render_prompt
from equipoise.metrics.calibration import auroc
from equipoise.metrics.entities import Pair, Parsed, exact, micro, parse
from equipoise.models.generation import generate_greedy
from equipoise.models.loading import load_model
from equipoise.models.sampling import draw
from equipoise.models.settings import ModelSettings
from equipoise.records import Entity, Message, Sample, Sentence
from equipoise.signals.samples import SIGNALS, PseudoLabel, pseudo_label, signal
from equipoise.testbed.ner import DIFFICULTIES, DOMAINS, TYPES, NerWorld, prompt

SAMPLES = 8
SUREST = 0.3  # share of the labels, by their agreement
_LONGEST = 64  # tokens of an answer
_SIGNAL = "combined"


def nersheet(model_dir: Path, world: NerWorld) -> dict[str, Any]:
    """Measure the model in `model_dir` on the test sentences of `world`: greedily, and by the labels of its samples."""
    loaded = load_model(ModelSettings(path=str(model_dir), device="cpu"))
    rows: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for domain in DOMAINS:
        sentences = world.sentences[domain, "test"]
        found = find(loaded.model, loaded.tokenizer, sentences)
        parts = {name: [s.meta["difficulty"] == name for s in sentences] for name in (*DIFFICULTIES[domain], "none")}
        for name, chosen in (*parts.items(), ("all", [True] * len(sentences))):
            rows.append({"domain": domain, "difficulty": name} | _scores(sentences, found, chosen))
        sampled = sample(loaded.model, loaded.tokenizer, sentences)
        labels.append({"domain": domain} | worth(sampled, [_gold(s) for s in sentences]))
    return {
        "text_hash": world.text_hash,
        "documents": len(world.text),
        "model": {
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
            "bytes": sum(f.stat().st_size for f in model_dir.iterdir()),
            "vocabulary": len(loaded.tokenizer),
        },
        "greedy": rows,
        "samples": labels,
    }


def find(model: Any, tokenizer: Any, sentences: Sequence[Sentence]) -> list[Parsed]:
    """The entities that greedy decoding finds in each sentence."""
    answers = generate_greedy(model, tokenizer, _prompts(tokenizer, sentences), max_new_tokens=_LONGEST)
    return [parse(text) for text in answers]


def sample(model: Any, tokenizer: Any, sentences: Sequence[Sentence], *, seed: int = 0) -> list[PseudoLabel]:
    """The label of each sentence that eight samples at temperature 1 vote for, and how far they agree."""
    seeds = [[seed + SAMPLES * n + k for k in range(SAMPLES)] for n in range(len(sentences))]
    drawn = [
        one
        for some in draw(model, tokenizer, _prompts(tokenizer, sentences), seeds, max_new_tokens=_LONGEST)
        for one in some
    ]
    said: list[list[Sample]] = [[] for _ in sentences]
    for one in drawn:
        text = tokenizer.decode(one.ids, skip_special_tokens=True)
        parsed = parse(text)
        said[one.prompt].append(
            Sample(
                id=sentences[one.prompt].id,
                model="testbed:ner",
                sample=one.sample,
                seed=seeds[one.prompt][one.sample],
                prompt_sha256="",
                text=text,
                entities=[Entity(type=kind, text=name) for kind, name in parsed.entities] if parsed.valid else None,
                tokens=len(one.logprobs),
                logprob=sum(one.logprobs),
            )
        )
    return [pseudo_label(samples) for samples in said]


def worth(labels: Sequence[PseudoLabel], gold: Sequence[Sequence[Pair]]) -> dict[str, Any]:
    """How often labels are exactly right, the surest ones too, and how well agreement tells which."""
    right = np.array([exact(label.entities, answer) for label, answer in zip(labels, gold)], dtype=bool)
    surest = np.argsort(-signal(labels, _SIGNAL), kind="stable")[: round(SUREST * len(labels))]
    return {
        "n": len(labels),
        "f1": round(micro(zip((label.entities for label in labels), gold)).f1, 4),
        "right": round(float(right.mean()), 4),
        "right_surest": round(float(right[surest].mean()), 4),
        "auroc": {name: round(auroc(signal(labels, name), right), 4) for name in SIGNALS} if right.any() else {},
    }


def _prompts(tokenizer: Any, sentences: Iterable[Sentence]) -> list[list[int]]:
    asked = (prompt(sentence.dataset, sentence.text) for sentence in sentences)
    return [render_prompt(tokenizer, [Message(role="user", content=text)]) for text in asked]


def _gold(sentence: Sentence) -> tuple[Pair, ...]:
    return pairs(sentence.entities or ())


def _scores(sentences: Sequence[Sentence], found: Sequence[Parsed], chosen: Sequence[bool]) -> dict[str, Any]:
    rows = [(parsed, _gold(s)) for parsed, s, wanted in zip(found, sentences, chosen) if wanted]
    if not rows:
        return {"n": 0}
    counts = micro((parsed.entities, gold) for parsed, gold in rows)
    said = [kind for parsed, _ in rows for kind, _ in parsed.entities]
    return {
        "n": len(rows),
        "entities": counts.tp + counts.fn,
        "f1": round(counts.f1, 4),
        "precision": round(counts.precision, 4),
        "recall": round(counts.recall, 4),
        "coarse": round(sum(kind in TYPES["source"] for kind in said) / max(1, len(said)), 4),
        "valid": round(sum(parsed.valid for parsed, _ in rows) / len(rows), 4),
    }


def markdown(sheet: dict[str, Any]) -> str:
    """The sheet as two Markdown tables: greedy answers by domain and difficulty, then labels that samples vote for."""
    greedy = [["domain", "told by", "sentences", "entities", "F1 %", "precision %", "recall %", "valid JSON %"]]
    for row in sheet["greedy"]:
        if row["n"]:
            figures = [f"{100 * row[name]:.1f}" for name in ("f1", "precision", "recall", "valid")]
            greedy.append([row["domain"], row["difficulty"], str(row["n"]), str(row["entities"]), *figures])
    labels = [["domain", "sentences", "F1 %", "right %", "surest 30%: right %", "AUROC of exact", "of combined"]]
    for row in sheet["samples"]:
        figures = [f"{100 * row[name]:.1f}" for name in ("f1", "right", "right_surest")]
        told = [f"{row['auroc'].get(name, float('nan')):.3f}" for name in ("exact", _SIGNAL)]
        labels.append([row["domain"], str(row["n"]), *figures, *told])
    return "\n\n".join(_table(lines, words) for lines, words in ((greedy, 2), (labels, 1)))


def _table(lines: Sequence[Sequence[str]], words: int) -> str:
    rule = ["---"] * words + ["---:"] * (len(lines[0]) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))
