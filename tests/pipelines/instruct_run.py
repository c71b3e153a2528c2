"""A small instruct run: its recipe, its files, and the verb that runs it."""

import json
from pathlib import Path

from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.testbed.instructions import load_instructions, load_preferences

RECIPE = """
name: small
pipeline: instruct
seeds: [1]
model: {path: testbed, device: cpu}
data:
  sources: [DIR/rows.jsonl, DIR/pairs.jsonl]
  validation: [DIR/held.jsonl]
  test: [DIR/test.jsonl, DIR/test_pairs.jsonl]
sft: {epochs: 2, learning_rate: 1e-3, batch_size: 8, checkpoint_every: 3, max_length: 128, lora: {r: 4, dropout: 0.1}}
dpo: {epochs: 2, learning_rate: 3e-4, batch_size: 8, checkpoint_every: 3, max_length: 128}
evaluation: {max_new_tokens: 24, by: form, sanity: testbed}
"""


def write(path, rows):
    path.write_text("".join(json.dumps(row.model_dump(exclude_defaults=True)) + "\n" for row in rows))


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def make(folder, text=RECIPE):
    """A recipe and its files: 24 instructions, 24 pairs, and some of each held out."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "rows.jsonl", load_instructions("sft")[:24])
    write(folder / "pairs.jsonl", load_preferences("preferences")[:24])
    write(folder / "held.jsonl", load_instructions("validation")[:6])
    write(folder / "test.jsonl", load_instructions("test")[:20])
    write(folder / "test_pairs.jsonl", load_preferences("test")[:16])
    path = folder / "recipe.yaml"
    path.write_text(text.replace("DIR", str(folder)))
    return path


def run(recipe, out, *more):
    return CliRunner().invoke(app, ["run", str(recipe), *more, "--out", str(out)])
