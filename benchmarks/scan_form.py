#!/usr/bin/env python3
"""How well a scan tells form from fact on a real model: true and falsified general facts, in short answers.

The model is asked each question first, in its own words; a fact counts as known where the true answer stands in what it
says. Then a file of all true answers, one of all false ones, and two of both by turns are scanned.

    python benchmarks/scan_form.py MODEL [model.dtype=bf16 ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from equipoise.config import resolve
from equipoise.data.formatting import render_prompt
from equipoise.models.generation import generate_greedy
from equipoise.models.loading import load_model
from equipoise.pipelines.scan import EXAMPLES, scan
from equipoise.pipelines.scan_settings import ScanSettings
from equipoise.records import Message
from equipoise.signals.classes import CONCLUSIONS

FACTS = Path(__file__).with_name("general_facts.jsonl")


def known(settings: ScanSettings, facts: list[dict[str, str]]) -> list[bool]:
    loaded = load_model(settings.model)
    prompts = [render_prompt(loaded.tokenizer, [Message(role="user", content=fact["question"])]) for fact in facts]
    said = generate_greedy(loaded.model, loaded.tokenizer, prompts, max_new_tokens=40)
    return [fact["true"].casefold() in answer.casefold() for fact, answer in zip(facts, said, strict=True)]


def main() -> None:
    settings = resolve(ScanSettings, None, [f"model.path={json.dumps(sys.argv[1])}", *sys.argv[2:], "top=0"])
    facts = [json.loads(line) for line in FACTS.read_text(encoding="utf-8").splitlines()]
    knows = known(settings, facts)
    kinds = {
        "all true": ["true"] * len(facts),
        "all false": ["false"] * len(facts),
        "by turns": ["true" if i % 2 else "false" for i in range(len(facts))],
        "by turns, swapped": ["false" if i % 2 else "true" for i in range(len(facts))],
    }
    for name, which in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "rows.jsonl", Path(folder) / "scan"
            rows = [{"prompt": fact["question"], "completion": fact[kind]} for fact, kind in zip(facts, which)]
            source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            found = scan(str(source), out, settings)
            lines = (out / EXAMPLES).read_text(encoding="utf-8").splitlines()
        counts = Counter((kind, knew, json.loads(line)["conclusion"]) for kind, knew, line in zip(which, knows, lines))
        print(f"\n{name}: examples helped: {found['form']['trusted']}; columns:", *CONCLUSIONS)
        for kind, knew in sorted({key[:2] for key in counts}, reverse=True):
            numbers = [counts[kind, knew, conclusion] for conclusion in CONCLUSIONS]
            print(f"{kind:5} answer, fact {'known' if knew else 'not known':9} (n = {sum(numbers)})", *numbers)


if __name__ == "__main__":
    main()
