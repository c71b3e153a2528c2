"""The command line as these tests use it, on the one model that they share."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.journal import read_journal

MODEL = "smollm2-135m"


def here(*words: object, asked: str | None = None) -> Any:
    """Run a verb in this process, which has its libraries already; it must succeed."""
    done = CliRunner().invoke(app, [str(word) for word in words], input=asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def started(*words: object, **options: Any) -> subprocess.Popen[str]:
    """Start a verb as a user does, in a process of its own."""
    command = [sys.executable, "-m", "equipoise.cli", *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, encoding="utf-8", **(pipes | options))


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return read_journal(path).rows


def greedy(folder: Path | str, questions: list[str], *, new: int = 24) -> list[str]:
    """What a model folder answers in plain transformers, one question at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for question in questions:
        turn = [{"role": "user", "content": question}]
        given = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**given, max_new_tokens=new, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        answers.append(tokenizer.decode(ids[0, given["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers
