"""`data clean`: sources of instruction data in, one clean form out, and every row accounted for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equipoise.config import resolve
from equipoise.console import say
from equipoise.data.gathering import open_rows
from equipoise.data.schemas import COLUMNS
from equipoise.errors import UserError
from equipoise.journal import atomic_directory, write_json
from equipoise.pipelines.cleaning_account import show
from equipoise.pipelines.cleaning_passes import Cleaning, Length
from equipoise.pipelines.cleaning_settings import CleaningSettings
from equipoise.pipelines.cleaning_stage import Source, remove, weights_of
from equipoise.records import Message

REPORT = "clean_report.json"
EXAMPLES, PAIRS = "examples.jsonl", "pairs.jsonl"
_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)*=")


def clean(inputs: Sequence[str | Path], out: Path, settings: CleaningSettings | None = None) -> dict[str, Any]:
    """Clean the rows of all inputs into the folder `out`, and return the report.

    `examples.jsonl` is what `load_examples` reads, `pairs.jsonl` what `load_pairs` reads; a file without rows is left
    out. `dropped.jsonl` and `changed.jsonl` name every other and every changed row, `clean_report.json` has the counts.
    The folder appears whole or not at all.

    Args:
        inputs: paths of JSONL files or JSON arrays, or `hub:NAME:SPLIT`; earlier ones keep what stands twice.

    Raises:
        UserError: an input or a held-out set cannot be read, has too many broken rows or one id for two texts, nothing
            is left, or `out` is a folder of something else.
    """
    settings = settings or CleaningSettings()
    sources = [Source(i, str(name), open_rows(name, COLUMNS)) for i, name in enumerate(inputs)]
    weights = weights_of(sources, settings.weights)
    if out.is_dir() and any(out.iterdir()) and not (out / REPORT).is_file():
        raise UserError("the folder holds something else", where=str(out), fix="name a new folder with --out")
    length = _length(settings)
    with atomic_directory(out) as folder:
        work = folder / "work"
        work.mkdir()
        with Cleaning(folder, work, sources, settings, length) as job:
            for source in sources:
                job.read(source)
            job.compare()
            job.mix(weights)
            report = {"settings": settings.model_dump(mode="json"), **job.write()}
        remove(work)
        write_json(folder / REPORT, report)
    show(report)
    say(f"wrote {out}")
    return report


def clean_command(words: Sequence[str], out: Path, against: list[str], model: str | None) -> None:
    """What the verb does: `key=value` among the words are settings, unless there is such a file; the others inputs.

    Raises:
        UserError: as `clean`, or a setting is at fault, or there is no input.
    """
    overrides = [word for word in words if _OVERRIDE.match(word) and not Path(word).exists()]
    inputs = [word for word in words if word not in overrides]
    if not inputs:
        raise UserError("no data is named", fix="give at least one file of rows before the settings")
    overrides += [f"against={json.dumps(against)}"] if against else []
    overrides += [f"model.path={json.dumps(model)}"] if model else []
    clean(inputs, out, resolve(CleaningSettings, None, overrides))


def _length(settings: CleaningSettings) -> Length:
    """Words as white space divides them, or the tokens that the model will see, template included."""
    if settings.model is None:
        return lambda messages: sum(len(message.content.split()) for message in messages)
    from equipoise.data.formatting import PLAIN_TEMPLATE, answer_parts
    from equipoise.models.loading import load_tokenizer

    tokenizer = load_tokenizer(settings.model)
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE

    def tokens(messages: Sequence[Message]) -> int:
        parts = answer_parts(tokenizer, messages)
        return len(parts.prompt) + len(parts.answer) + len(parts.end)

    return tokens
