"""The passes of a cleaning job: look at each row alone, compare rows with each other, mix, and write what stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipoise.console import say
from equipoise.data.cleaning import CleanRow, Kind, Rejected, clean_row, rule_of
from equipoise.data.gathering import LISTED
from equipoise.data.jsonl import BadRow, Raw, shown
from equipoise.data.near_duplicates import banding
from equipoise.errors import UserError
from equipoise.pipelines.cleaning_account import Account, spread
from equipoise.pipelines.cleaning_against import HeldOut
from equipoise.pipelines.cleaning_settings import CleaningSettings
from equipoise.pipelines.cleaning_stage import Ids, Ledger, Source, Stage
from equipoise.records import Message

KINDS: tuple[Kind, ...] = ("examples", "pairs")
TOLD_EVERY = 50_000  # rows
BAD = ("broken", "schema", "empty")  # rules that speak against the file, not the row
Length = Callable[[Sequence[Message]], int]


class _Gone(NamedTuple):
    """Why a row of a stage is not written, and where its twin stands with what Jaccard index, if there is one."""

    rule: str
    reason: str
    twin: str | None = None
    similarity: float | None = None


class Cleaning:
    """One job, to be taken through `read` for every source, `compare`, `mix` and `write`."""

    def __init__(self, folder: Path, work: Path, sources: Sequence[Source], settings: CleaningSettings, length: Length):
        self.folder, self.sources, self.settings, self.length = folder, sources, settings, length
        self.allowed = None if settings.licences is None else {name.casefold() for name in settings.licences}
        self.account, self.held_out = Account(settings), HeldOut(settings)
        self.stages: dict[Kind, Stage] = {
            kind: Stage(work, kind, settings, questions=bool(settings.against)) for kind in KINDS
        }
        for stage in self.stages.values():
            self.held_out.add_to(stage)
        self.dropped, self.changed = Ledger(folder / "dropped.jsonl"), Ledger(folder / "changed.jsonl")
        self.gone: dict[Kind, dict[int, _Gone]] = {kind: {} for kind in KINDS}
        self.mixture: dict[str, Any] | None = None
        self._seen: dict[int, int] = {}
        self._ids = Ids()

    def __enter__(self) -> Cleaning:
        return self

    def __exit__(self, *_: Any) -> None:
        for file in (*self.stages.values(), self.dropped, self.changed):
            file.close()

    # ---- the first pass

    def read(self, source: Source) -> None:
        """Look at each row of a source alone, and at what was read before it.

        Raises:
            UserError: more than `max_bad_share` of its rows cannot be read, it has none, or one id names two texts.
        """
        rows, bad, first = 0, 0, []
        for raw in source.rows:
            rows += 1
            self.account.rows_in += 1
            if self.account.rows_in % TOLD_EVERY == 0:
                say(f"{self.account.rows_in:,} rows read, {sum(self.dropped.counts.values()):,} dropped so far")
            try:
                if isinstance(raw.values, BadRow):
                    raise Rejected("broken", raw.values.reason, raw.values.field)
                self._admit(source, raw.line, raw.values)
            except BadRow as reason:
                rule = rule_of(reason)
                bad += rule in BAD
                first += [(raw.line, reason)] if rule in BAD and len(first) < LISTED else []
                self._refuse(source, raw, rule, reason)
        self.account.add_source(source, rows)
        if rows == 0:
            raise UserError("there are no rows", where=source.rows.where(1), docs="docs/cleaning.md")
        if bad > self.settings.max_bad_share * rows:
            raise _too_bad(source, rows, bad, first, self.settings.max_bad_share)

    def _admit(self, source: Source, at: int, values: dict[str, Any]) -> None:
        row = clean_row(values)
        self.account.add(row)
        self._check_licence(row)
        digest = row.digest
        first = self._seen.setdefault(digest, source.number << 32 | at)
        if first != source.number << 32 | at:
            where = self._place(first >> 32, first & 0xFFFFFFFF)
            raise Rejected("duplicate", f"the same text as {where}")
        held = self.held_out.place(row)
        if held is not None:
            raise Rejected("overlap", f"the question stands in a held-out set, at {held}")
        length, order = self.length(row.conversation), self._order(digest)
        self._check_length(length, order[0])
        name = self._ids.take(row.id, digest, source, at)
        changes = row.changes + ([{"field": "id", "rule": "id"}] if row.id not in (None, name) else [])
        meta = {"from": source.rows.where(at)} | row.values.get("meta", {})
        stage = self.stages[row.kind]
        stage.add({"id": name} | row.values | {"meta": meta}, changes, (source.number, at), length, order[1])
        if stage.texts is not None:
            stage.texts.add(row.text)
        if stage.questions is not None:
            stage.questions.add("\n".join(row.asked[0]))

    def _check_licence(self, row: CleanRow) -> None:
        if self.allowed is None or (row.licence or "unknown").casefold() in self.allowed:
            return
        reason = f"the licence {shown(row.licence, 40)!r} is not allowed" if row.licence else "no licence is named"
        raise Rejected("licence", reason, "licence")

    def _order(self, digest: int) -> tuple[int, int]:
        """Two numbers of 64 bits that seed and text decide, to choose rows by."""
        key = self.settings.seed.to_bytes(8, "big")
        both = int.from_bytes(blake2b(digest.to_bytes(16, "big"), digest_size=16, key=key).digest(), "big")
        return both >> 64, both & (2**64 - 1)

    def _check_length(self, length: int, order: int) -> None:
        window, unit = self.settings.length, self.account.unit
        self.account.lengths.append(length)
        if length < window.min:
            raise Rejected("short", f"{length} {unit}, fewer than {window.min}")
        if window.max is not None and length > window.max:
            raise Rejected("long", f"{length} {unit}, more than {window.max}")
        if window.long_over is not None and length > window.long_over and order >= window.long_keep * 2**64:
            reason = f"{length} {unit}; of those over {window.long_over} only {window.long_keep:.0%} are kept"
            raise Rejected("thinned", reason)

    def _refuse(self, source: Source, raw: Raw, rule: str, reason: BadRow) -> None:
        given = None if isinstance(raw.values, BadRow) else raw.values.get("id")
        entry = {"source": source.rows.where(raw.line), "id": given if isinstance(given, (str, int)) else None}
        entry |= {"rule": rule, "field": reason.field, "reason": reason.reason, "excerpt": raw.excerpt}
        self.dropped.write([rule], entry)

    def _place(self, number: int, line: int) -> str:
        return self.sources[number].rows.where(line)

    # ---- the second pass

    def compare(self) -> None:
        """Find near duplicates, first of held-out questions, then among the rows that stay."""
        self._seen, self._ids = {}, Ids()
        for kind, stage in self.stages.items():
            gone = self.gone[kind]
            if stage.questions is not None:
                count = len(self.held_out)
                for number, twin in stage.questions.twins(among=count).items():
                    where = self.held_out.places[twin.of]
                    reason = f"the question is a near duplicate of a held-out one, at {where}"
                    gone[number - count] = _Gone("near-overlap", reason, where, twin.similarity)
            if stage.texts is not None:
                for number, twin in stage.texts.twins(skip=gone.copy()).items():
                    where = self._place(stage.sources[twin.of], stage.lines[twin.of])
                    reason = f"a near duplicate of {where}"
                    gone[number] = _Gone("near-duplicate", reason, where, twin.similarity)

    def mix(self, weights: Sequence[float] | None) -> None:
        """Leave out as few rows as make the sources' shares those of their weights, chosen by seed and text."""
        if weights is None:
            return
        self.mixture = {}
        for kind, stage in self.stages.items():
            stays = np.ones(len(stage), dtype=bool)
            stays[list(self.gone[kind])] = False
            of, order = np.frombuffer(stage.sources, "uint16"), np.frombuffer(stage.orders, "uint64")
            there = np.bincount(of[stays], minlength=len(weights))
            shares = [count / weight for count, weight in zip(there, weights, strict=True) if count]
            for source, weight, count in zip(self.sources, weights, there, strict=True):
                room = int(min(shares) * weight + 1e-9) if count else 0
                mine = np.flatnonzero(stays & (of == source.number))
                for number in mine[np.argsort(order[mine], kind="stable")][room:]:
                    self.gone[kind][int(number)] = _Gone(
                        "mixture", f"{source.name} has room for {room} of {count} rows"
                    )
                if count:
                    said = {"weight": weight, "rows": int(count), "kept": min(room, int(count))}
                    self.mixture.setdefault(kind, {})[source.name] = said

    # ---- the third pass

    def write(self) -> dict[str, Any]:
        """Write what stays and list what does not.

        Returns:
            The counts, for the report.

        Raises:
            UserError: nothing stays.
        """
        kept: dict[Kind, int] = {kind: self._write(kind) for kind in KINDS}
        total, dropped = sum(kept.values()), dict(sorted(self.dropped.counts.items()))
        if total == 0:
            most = ", ".join(f"{rule} {count}" for rule, count in dropped.items())
            raise UserError(f"no row is left of {self.account.rows_in} ({most})", fix="loosen the rules that took most")
        if self.account.rows_in != total + sum(dropped.values()):
            raise AssertionError(f"{self.account.rows_in} rows in, {total} kept, dropped {dropped}")
        return self._report(kept, dropped)

    def _write(self, kind: Kind) -> int:
        stage, gone, kept = self.stages[kind], self.gone[kind], 0
        path = self.folder / f"{kind}.jsonl"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for number, row, changes in stage:
                where = self._place(stage.sources[number], stage.lines[number])
                values = json.loads(row)
                if number in gone:
                    self._list(where, values, gone[number], row)
                    continue
                kept += 1
                file.write(row + "\n")
                self.account.add_kept(values)
                if changes != "[]":
                    made = json.loads(changes)
                    entry = {"source": where, "id": values["id"], "changes": made}
                    self.changed.write([change["rule"] for change in made], entry)
        if kept == 0:
            path.unlink()
        return kept

    def _list(self, where: str, values: dict[str, Any], why: _Gone, row: str) -> None:
        entry = {"source": where, "id": values["id"], "rule": why.rule, "field": "", "reason": why.reason}
        if why.twin is not None and why.similarity is not None:
            entry |= {"twin": why.twin, "similarity": round(why.similarity, 4)}
        self.dropped.write([why.rule], entry | {"excerpt": shown(row)})

    def _report(self, kept: dict[Kind, int], dropped: dict[str, int]) -> dict[str, Any]:
        account = self.account
        stays = [
            np.delete(np.frombuffer(stage.lengths, "uint64"), list(self.gone[kind]))
            for kind, stage in self.stages.items()
        ]
        return {
            "rows_in": account.rows_in,
            "kept": sum(kept.values()),
            "kept_by_kind": kept,
            "dropped": dropped,
            "changed": dict(sorted(self.changed.counts.items())),
            "schemas": dict(account.schemas.most_common()),
            "unread_fields": dict(account.unread.most_common()),
            "lengths": {
                "unit": account.unit,
                "before": spread(np.frombuffer(account.lengths, "uint64")),
                "after": spread(np.concatenate(stays)),
            },
            "licences": dict(account.licences.most_common()),
            "languages": dict(account.languages.most_common()),
            "near_duplicates": self._search(),
            "held_out": {"questions": len(self.held_out), "rows_without_question": self.held_out.unreadable},
            "mixture": self.mixture,
            "sources": account.sources,
        }

    def _search(self) -> dict[str, Any] | None:
        """How near duplicates were looked for, and how often not with all others."""
        near = self.settings.near
        if near.threshold is None:
            return None
        cut = banding(near.threshold)
        indexes = [index for stage in self.stages.values() for index in (stage.texts, stage.questions)]
        return {
            "threshold": near.threshold,
            "shingle": near.shingle,
            "bands": cut.bands,
            "rows": cut.rows,
            "recall_at_threshold": round(cut.recall(near.threshold), 4),
            "not_compared_in_crowded_buckets": sum(index.crowded for index in indexes if index is not None),
        }


def _too_bad(source: Source, rows: int, bad: int, first: list[tuple[int, BadRow]], allowed: float) -> UserError:
    listed = [f"  {source.rows.where(line, reason.field)}: {reason.reason}" for line, reason in first]
    more = [f"  and {bad - len(first)} more"] if bad > len(first) else []
    what = f"{bad} of {rows} rows cannot be read ({bad / rows:.1%}; {allowed:.1%} are allowed)"
    return UserError(
        "\n".join([what, *listed, *more]),
        where=source.rows.where(first[0][0], first[0][1].field),
        fix="check that this is the right file, or raise max_bad_share",
        docs="docs/cleaning.md",
    )
