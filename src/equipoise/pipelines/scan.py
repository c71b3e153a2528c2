"""`scan`: one forward pass over a data set, before training, that says what its tokens are to the model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.config import dump_yaml, resolve
from equipoise.console import progress, say, table, warn
from equipoise.data.formatting import IGNORE, Rendered, Unusable, render
from equipoise.data.loading import Loaded as Data
from equipoise.errors import UserError
from equipoise.evaluation.tokens import TokenReader
from equipoise.journal import atomic_directory, write_atomic, write_json, write_jsonl
from equipoise.models.loading import Loaded, load_model
from equipoise.pipelines.scan_advice import advise
from equipoise.pipelines.scan_data import load_any, rows_of
from equipoise.pipelines.scan_settings import ScanSettings
from equipoise.pipelines.scan_tables import Tally
from equipoise.records import Example
from equipoise.report.scan import SCAN, build_scan_report
from equipoise.signals.tokens import TokenStatistics, normalized_entropy

TOKENS, EXAMPLES, DROPPED = "tokens.jsonl", "examples.jsonl", "dropped.jsonl"


def scan_command(data: str, model: str, out: Path | None, top: int | None, overrides: Sequence[str]) -> None:
    """What the verb does.

    Raises:
        UserError: as `scan`, or a setting is at fault.
    """
    words = [f"model.path={json.dumps(model)}", *overrides, *([] if top is None else [f"top={top}"])]
    settings = resolve(ScanSettings, None, words)
    scan(data, out or Path("scan"), settings)


def scan(source: str, out: Path, settings: ScanSettings) -> dict[str, Any]:
    """Classify every supervised token of `source` under the model of `settings`, and return what `scan.json` holds.

    The folder `out` appears whole or not at all: `scan.json` (shares, table, suggestion, the listed examples),
    `examples.jsonl` (one row an example), `tokens.jsonl` (one row an example, arrays over its tokens), `dropped.jsonl`
    (what was not scanned, and why), `config.yaml` and `report.html`.

    Raises:
        UserError: the source cannot be read or has no usable example, the model cannot be loaded or gives a token no
            finite probability, or `out` is a folder of something else.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / SCAN).is_file():
        raise UserError("the folder holds something else", where=str(out), fix="name a new folder with --out")
    data = load_any(source, max_bad_share=settings.max_bad_share)
    for note in data.notes:
        warn(note)
    loaded = load_model(settings.model)
    kept, dropped = _rendered(loaded, data, source, settings)
    with atomic_directory(out) as folder:
        tally, seconds = _read(loaded, kept, folder, settings)
        found = _result(source, data, settings, tally, seconds) | {"n_dropped": len(dropped)}
        write_jsonl(folder / DROPPED, dropped)
        write_json(folder / SCAN, found)
        write_atomic(folder / "config.yaml", dump_yaml(settings))
        build_scan_report(folder)
    _show(found, out)
    return found


def _rendered(
    loaded: Loaded, data: Data, source: str, settings: ScanSettings
) -> tuple[list[tuple[Example, Rendered]], list[dict[str, Any]]]:
    kept: list[tuple[Example, Rendered]] = []
    dropped = [{"item": None, "line": row.line, "field": row.field, "reason": row.reason} for row in data.dropped]
    for example in data.examples[: settings.limit]:
        try:
            row = render(
                loaded.tokenizer, example, train_on_prompt=settings.train_on_prompt, max_length=settings.max_length
            )
        except Unusable as reason:
            dropped.append({"item": example.id, "line": None, "field": None, "reason": str(reason)})
        else:
            kept.append((example, row))
    if not kept:
        raise UserError(
            f"none of {len(dropped)} examples can be scanned; {dropped[0]['item']}: {dropped[0]['reason']}",
            where=source,
            fix="raise max_length, or mend the rows",
        )
    return kept, dropped


def _read(
    loaded: Loaded, kept: list[tuple[Example, Rendered]], folder: Path, settings: ScanSettings
) -> tuple[Tally, float]:
    reader = TokenReader(loaded, batch_tokens=settings.batch_tokens)
    tally = Tally(reader.vocab, settings.classes, settings.top, lambda token: loaded.tokenizer.decode([token]))
    started = time.perf_counter()
    with (
        (folder / TOKENS).open("w", encoding="utf-8", newline="\n") as tokens,
        (folder / EXAMPLES).open("w", encoding="utf-8", newline="\n") as examples,
        progress(sum(len(row.input_ids) for _, row in kept), "tokens read") as bar,
    ):
        for (example, row), read in zip(kept, reader.read((row for _, row in kept), on_batch=bar.advance)):
            targets = [label for label in row.labels[1:] if label != IGNORE]
            _check(example, targets, read, loaded)
            h = normalized_entropy(read.entropy, reader.vocab).numpy()
            summary, arrays = tally.add(example, targets, read.nll.numpy(), h, read.argmax.tolist())
            tokens.write(json.dumps(arrays, separators=(",", ":")) + "\n")
            examples.write(json.dumps(summary, ensure_ascii=False) + "\n")
    return tally, time.perf_counter() - started


def _check(example: Example, targets: list[int], read: TokenStatistics, loaded: Loaded) -> None:
    sound = np.isfinite(read.nll.numpy()) & np.isfinite(read.entropy.numpy())
    if sound.all():
        return
    at = int(np.flatnonzero(~sound)[0])
    raise UserError(
        f"the model gives no finite probability to token {at + 1} of {example.id!r}, "
        f"{loaded.tokenizer.decode([targets[at]])!r}",
        where=str(example.meta.get("source", example.id)),
        fix="its weights are damaged or too large for this precision: fetch them again, or set model.dtype=fp32",
    )


def _result(source: str, data: Data, settings: ScanSettings, tally: Tally, seconds: float) -> dict[str, Any]:
    found = tally.result()
    return {
        "schema_version": 1,
        "data": source,
        "sha256": data.sha256,
        "model": settings.model.path,
        "seconds": round(seconds, 3),
        **found,
        "suggestion": advise(found, rows_of(source), settings),
    }


def _show(found: dict[str, Any], out: Path) -> None:
    columns = ["class", "tokens", "share", "examples*"]
    rows = [
        [name, f"{n:,}", f"{n / found['n_tokens']:.1%}", f"{found['examples'][name]:,}"]
        for name, n in found["tokens"].items()
    ]
    table(
        f"{found['n_tokens']:,} tokens of {found['n_examples']:,} examples, as {found['model']} sees them",
        columns,
        rows,
    )
    print("* by the most surprising token of each")
    advice = found["suggestion"]
    print(f"\nSuggested: {advice['objective']}")
    for reason in advice["reasons"]:
        print(f"  {reason}")
    print(f"  {advice['command']}")
    say(f"wrote {out}; look at {out / 'report.html'}")
