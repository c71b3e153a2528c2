"""TESTING.md: how whoever receives a model loads it, what to ask it, what to expect, and how to report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MERGED = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder)"""
ADAPTER = """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained(folder)  # finds the base by its name in adapter_config.json"""
SHEET = """# Testing {name}

## Load it

```python
{load}
tokenizer = AutoTokenizer.from_pretrained(folder)
turn = [{{"role": "user", "content": "..."}}]
ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=256, do_sample=False)[0, ids["input_ids"].shape[1]:]))
```

Or talk to it: `equipoise chat FOLDER --temperature 0 --confidence`.

## Prompts to try

{prompts}

## Numbers to expect

{measured}

Greedy answers repeat up to rounding: on other hardware, or quantized, some may differ, so compare shares,
not single answers.

## Report

For each answer that is wrong, odd or harmful: the prompt as you sent it, the whole answer, what you expected, how you
loaded the model (versions, dtype, quantization, temperature), and whether it comes again at temperature 0. Say what
went well, too: the share of right answers among those you tried, and how many those were.
"""


def testing_sheet(
    name: str, answers: Sequence[Mapping[str, Any]], measured: str, *, adapter: bool, examples: int = 8
) -> str:
    """The sheet in Markdown, with held-out prompts that the run asked this model.

    Args:
        answers: rows with `prompt` and `output` and, where known, `gold` and `score`, `correct` or `exact`.
    """
    chosen = _spread([row for row in answers if row.get("prompt")], examples)
    return SHEET.format(
        name=name,
        load=ADAPTER if adapter else MERGED,
        prompts="\n".join(map(_example, chosen))
        or "The run kept no answers to held-out prompts: ask what the model was trained for, in words of your own.",
        measured=measured,
    )


def _spread(rows: list[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Rows of each task in turn, most of them answered rightly, held-out phrasings before trained ones."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (-bool(row.get("phrasing")), not _right(row))):
        groups.setdefault((row.get("task", row.get("domain", row.get("part"))), _right(row)), []).append(row)
    order = sorted(groups, key=lambda group: not group[1])
    turns = (groups[group][turn] for turn in range(count) for group in order if turn < len(groups[group]))
    return [row for row, _ in zip(turns, range(count))]


def _right(row: Mapping[str, Any]) -> bool:
    return bool(row.get("correct", row.get("exact", row.get("score", 0) == 1)))


def _example(row: Mapping[str, Any]) -> str:
    gold = row.get("gold", row.get("answer"))
    expected = "" if gold is None else f"A right answer:\n\n{_fenced(str(gold))}\n\n"
    verdict = "right" if _right(row) else "wrong"
    said = f"This model said, which counted as {verdict}:\n\n{_fenced(str(row.get('output', '')))}\n"
    return f"Ask:\n\n{_fenced(str(row['prompt']))}\n\n{expected}{said}"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
