"""The account of a cleaning job: what came in, what stayed, and by which rules the rest went."""

from array import array
from collections import Counter
from typing import Any

import numpy as np

from equipoise.console import table
from equipoise.data.cleaning import CleanRow
from equipoise.data.rules import RULES
from equipoise.pipelines.cleaning_settings import CleaningSettings
from equipoise.pipelines.cleaning_stage import Source

PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


class Account:
    """Counts over the first pass."""

    def __init__(self, settings: CleaningSettings):
        self.unit = "tokens" if settings.model else "words"
        self.rows_in = 0
        self.lengths = array("Q")  # of all rows before the window
        self.schemas: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.sources: list[dict[str, Any]] = []

    def add(self, row: CleanRow) -> None:
        """Count a row that can be read."""
        self.schemas[row.schema] += 1
        self.unread.update(dict.fromkeys(row.unread, 1))

    def add_source(self, source: Source, rows: int) -> None:
        """Note a source that was read to its end."""
        said = {"source": source.name, "sha256": source.rows.sha256, "rows": rows, "notes": list(source.rows.notes)}
        self.sources.append(said)

    def add_kept(self, row: dict[str, Any]) -> None:
        """Count a row that stayed to the end, by what its `meta` says."""
        meta = row.get("meta") or {}
        self.licences[meta.get("licence") or "unknown"] += 1
        self.languages[meta.get("language") or "unknown"] += 1


def spread(lengths: np.ndarray) -> dict[str, int]:
    """Percentiles of lengths, and the longest."""
    if not len(lengths):
        return {}
    values = np.percentile(lengths, PERCENTILES, method="inverted_cdf")
    return {f"p{share}": int(value) for share, value in zip(PERCENTILES, values, strict=True)} | {
        "max": int(lengths.max())
    }


def show(report: dict[str, Any]) -> None:
    """Print what became of the rows, and how long they are."""
    rows_in = report["rows_in"]
    rows = [["read", str(rows_in), "100.0%", ""]]
    rows += [
        [rule, str(count), f"{count / rows_in:.1%}", RULES[rule]]
        for rule, count in sorted(report["dropped"].items(), key=lambda entry: list(RULES).index(entry[0]))
    ]
    rows += [["kept", str(report["kept"]), f"{report['kept'] / rows_in:.1%}", ""]]
    table("What became of the rows", ["rule", "rows", "share", "meaning"], rows, words=True)
    for rule, count in report["changed"].items():
        print(f"changed by {rule}: {count} rows")
    lengths = report["lengths"]
    columns = list(lengths["before"])
    rows = [[when, *(str(lengths[when].get(name, "")) for name in columns)] for when in ("before", "after")]
    table(f"Lengths in {lengths['unit']}, before the window and in the end", ["", *columns], rows)
