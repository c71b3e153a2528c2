"""`scan`: a data set before training: what its rows and their tokens are to the model, and what is form alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equipoise.config import dump_yaml, resolve
from equipoise.console import progress, say, table, warn
from equipoise.data.formatting import Rendered, Unusable, render
from equipoise.data.loading import Loaded as Data
from equipoise.errors import UserError
from equipoise.evaluation.tokens import TokenReader
from equipoise.journal import atomic_directory, write_atomic, write_json, write_jsonl
from equipoise.models.head import output_head
from equipoise.models.loading import Loaded, load_model
from equipoise.pipelines.scan_advice import advise
from equipoise.pipelines.scan_data import load_any, rows_of
from equipoise.pipelines.scan_readings import Readings, Row, examples_help
from equipoise.pipelines.scan_settings import ScanSettings
from equipoise.pipelines.scan_tables import Tally
from equipoise.report.scan import SCAN, build_scan_report

TOKENS, EXAMPLES, DROPPED = "tokens.jsonl", "examples.jsonl", "dropped.jsonl"
TRIED = 64  # rows that decide whether examples help


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
    say(f"loading {settings.model.path} for {len(data.examples):,} rows")
    loaded = load_model(settings.model)
    kept, dropped = _rendered(loaded, data, source, settings)
    with atomic_directory(out) as folder:
        started = time.perf_counter()
        account = _read(loaded, kept, settings)
        seconds = time.perf_counter() - started
        tally = _written(loaded, kept, account, folder, settings)
        found = _result(source, data, settings, tally, account, seconds) | {"n_dropped": len(dropped)}
        write_jsonl(folder / DROPPED, dropped)
        write_json(folder / SCAN, found)
        write_atomic(folder / "config.yaml", dump_yaml(settings))
        build_scan_report(folder)
    _show(found, out)
    return found


def _rendered(
    loaded: Loaded, data: Data, source: str, settings: ScanSettings
) -> tuple[list[Row], list[dict[str, Any]]]:
    kept: list[Row] = []
    dropped = [{"item": None, "line": row.line, "field": row.field, "reason": row.reason} for row in data.dropped]
    for example in data.examples[: settings.limit]:
        try:
            row = render(
                loaded.tokenizer, example, train_on_prompt=settings.train_on_prompt, max_length=settings.max_length
            )
            answer = render(loaded.tokenizer, example).supervised if settings.train_on_prompt else row.supervised
        except Unusable as reason:
            dropped.append({"item": example.id, "line": None, "field": None, "reason": str(reason)})
        else:
            kept.append(Row(example, row, answer))
    if not kept:
        raise UserError(
            f"none of {len(dropped)} examples can be scanned; {dropped[0]['item']}: {dropped[0]['reason']}",
            where=source,
            fix="raise max_length, or mend the rows",
        )
    return kept, dropped


def _read(loaded: Loaded, rows: list[Row], settings: ScanSettings) -> dict[str, Any]:
    """Read the rows, and give the account of their second reading."""
    reader = TokenReader(loaded, batch_tokens=settings.batch_tokens)
    readings = Readings(loaded, reader, rows)
    with progress(sum(len(row.rendered.input_ids) for row in rows), "tokens read") as bar:
        readings.first(bar.advance)
    form = _read_form(readings, rows) if settings.form else {"asked": False, **examples_help([]), "without": {}}
    old = readings.old_plan(form["trusted"])
    if old:
        with progress(_tokens(old), "tokens of outdated answers read") as bar:
            readings.old(old, bar.advance)
    return form


def _read_form(readings: Readings, rows: list[Row]) -> dict[str, Any]:
    """Read rows with examples: some of them first, and the others only where examples help this model."""
    planned, without = readings.plan()
    step = -(-len(planned) // TRIED) if planned else 1
    tried, others = planned[::step], [row for i, row in enumerate(planned) if i % step]
    for part, label in (
        (tried, "tokens read after examples"),
        (others, "tokens of the other rows read after examples"),
    ):
        if part:
            with progress(_tokens(part), label) as bar:
                readings.shown(part, bar.advance)
        helped = examples_help(rows)
        if not helped["trusted"]:
            break
    readings.judge()
    return {"asked": True, **examples_help(rows), "without": without}


def _tokens(planned: list[tuple[Row, Rendered]]) -> int:
    return sum(len(rendered.input_ids) for _, rendered in planned)


def _written(loaded: Loaded, rows: list[Row], account: dict[str, Any], folder: Path, settings: ScanSettings) -> Tally:
    vocab = len(output_head(loaded.model).weight)
    tally = Tally(
        vocab,
        settings.classes,
        settings.top,
        lambda token: loaded.tokenizer.decode([token]),
        trusted=account["trusted"],
    )
    with (
        (folder / TOKENS).open("w", encoding="utf-8", newline="\n") as tokens,
        (folder / EXAMPLES).open("w", encoding="utf-8", newline="\n") as examples,
    ):
        for row in rows:
            summary, arrays = tally.add(row)
            tokens.write(json.dumps(arrays, separators=(",", ":")) + "\n")
            examples.write(json.dumps(summary, ensure_ascii=False) + "\n")
    return tally


def _result(
    source: str, data: Data, settings: ScanSettings, tally: Tally, form: dict[str, Any], seconds: float
) -> dict[str, Any]:
    found = tally.result() | {"form": form}
    return {
        "schema_version": 2,
        "data": source,
        "sha256": data.sha256,
        "model": settings.model.path,
        "seconds": round(seconds, 3),
        **found,
        "suggestion": advise(found, rows_of(source), settings),
    }


def _show(found: dict[str, Any], out: Path) -> None:
    rows = [[name, f"{n:,}", f"{n / found['n_examples']:.1%}"] for name, n in found["conclusions"].items()]
    table(f"{found['n_examples']:,} rows, as {found['model']} sees them", ["the answer is", "rows", "share"], rows)
    rows = [[name, f"{n:,}", f"{n / found['n_tokens']:.1%}"] for name, n in found["tokens"].items()]
    table(f"\n{found['n_tokens']:,} tokens of their answers", ["class", "tokens", "share"], rows)
    advice = found["suggestion"]
    print(f"\nSuggested: {advice['objective']}")
    for reason in advice["reasons"]:
        print(f"  {reason}")
    print(f"  {advice['command']}")
    say(f"wrote {out}; look at {out / 'report.html'}")
