"""The two readings of a scan: each row as it is asked, and again with two other rows before it as examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.data.formatting import IGNORE, Rendered, Unusable, end_of_turn_ids, render
from equipoise.data.shots import Shots, with_shots
from equipoise.errors import UserError
from equipoise.evaluation.tokens import TokenReader
from equipoise.models.loading import Loaded
from equipoise.records import Example
from equipoise.signals.tokens import TokenStatistics, normalized_entropy

Floats = NDArray[np.floating[Any]]
GAIN = 0.1  # of the answers' nll, from which on examples are held to help
FEWEST = 4  # rows with a second reading
OPENER_ROWS, OPENER_SHARE = 3, 0.05  # rows that the model would begin alike, from which on that is its own form


class Reading(NamedTuple):
    """What a model thinks of the n supervised tokens of a row, each [n]."""

    nll: Floats  # nats
    h: Floats  # normalized entropy
    said: list[int]  # the token that it would say
    logp_said: Floats  # nats
    tail: Floats | None = None  # probability of all tokens at least as unlikely

    @classmethod
    def of(cls, read: TokenStatistics, vocab: int) -> Reading:
        tail = getattr(read, "tail", None)
        return cls(
            read.nll.numpy(),
            normalized_entropy(read.entropy, vocab).numpy(),
            read.argmax.tolist(),
            read.logp_argmax.numpy(),
            None if tail is None else tail.numpy(),
        )


@dataclass
class Row:
    """A row of the data with its rendering and its readings.

    Attributes:
        answer: how many of the last supervised tokens are the answer.
        first: the row as it is asked, in training too.
        shown: with two other rows before it, or None where it has no second reading; only its answer is read.
        ends: whether the last supervised token ends the answer.
        opens: where the answer begins, if the model would begin there, after the examples, in another form.
        logp_old: log-probability of the outdated answer, its end included, in the last of these readings; nats.
    """

    example: Example
    rendered: Rendered
    answer: int
    shots: tuple[Example, ...] = ()
    first: Reading | None = None
    shown: Reading | None = None
    ends: bool = False
    opens: int | None = None
    logp_old: float | None = None

    @property
    def targets(self) -> list[int]:
        return targets(self.rendered)


def targets(rendered: Rendered) -> list[int]:
    """The supervised tokens."""
    return [label for label in rendered.labels[1:] if label != IGNORE]


class Readings:
    """Reads rows under a model, and tells `advance` of every token that went through it."""

    def __init__(self, loaded: Loaded, reader: TokenReader, rows: list[Row]):
        self.loaded, self.reader, self.rows = loaded, reader, rows

    def first(self, advance: Callable[[int], None]) -> None:
        """Read every row as it is asked.

        Raises:
            UserError: the model gives a token no finite probability.
        """
        read = self._read((row.rendered for row in self.rows), advance)
        for row, reading in zip(self.rows, read):
            _check(row, reading, self.loaded)
            row.first = reading

    def plan(self) -> tuple[list[tuple[Row, Rendered]], dict[str, int]]:
        """The rows with examples before them, and how many rows have none, by reason."""
        chooser = Shots([row.example for row in self.rows])
        longest = _positions(self.loaded.model)
        planned: list[tuple[Row, Rendered]] = []
        without: dict[str, int] = {}
        for row in self.rows:
            chosen, why = chooser.before(row.example)
            rendered = None if chosen is None else self._rendered(with_shots(row.example, chosen))
            if rendered is not None and longest is not None and len(rendered.input_ids) > longest:
                rendered, why = None, f"with examples it is longer than the model's {longest} positions"
            if rendered is None or chosen is None:
                without[why or OTHER_TOKENS] = without.get(why or OTHER_TOKENS, 0) + 1
            elif targets(rendered) != row.targets[-rendered.supervised :]:
                without[OTHER_TOKENS] = without.get(OTHER_TOKENS, 0) + 1
            else:
                row.shots = chosen
                planned.append((row, rendered))
        return planned, without

    def shown(self, planned: list[tuple[Row, Rendered]], advance: Callable[[int], None]) -> None:
        """Read the planned rows with their examples. What of a row was supervised beside the answer stays unread."""
        for (row, _), reading in zip(planned, self._read((rendered for _, rendered in planned), advance)):
            row.shown = _aligned(reading, len(row.targets))

    def judge(self) -> None:
        """Note of each row where its answer ends, and where the model would begin it in another form."""
        stops = set(end_of_turn_ids(self.loaded.tokenizer))
        openers = _openers(self.rows)
        for row in self.rows:
            row.ends = row.targets[-1] in stops
            if row.shown is not None:
                at = len(row.targets) - row.answer
                said = row.shown.said[at]
                words = _words(self.loaded.tokenizer.decode([said]))
                row.opens = at if said in openers or _restates(words, row.example.prompt) else None

    def old_plan(self, trusted: bool) -> list[tuple[Row, Rendered]]:
        """The outdated answers of the rows that have one, with examples where a second reading is trusted."""
        planned = []
        for row in self.rows:
            if row.example.old is None:
                continue
            shots = row.shots if trusted and row.shown is not None else ()
            rendered = self._rendered(with_shots(row.example, shots, answer=row.example.old))
            if rendered is not None:
                planned.append((row, rendered))
        return planned

    def old(self, planned: list[tuple[Row, Rendered]], advance: Callable[[int], None]) -> None:
        """Read the outdated answers."""
        for (row, _), reading in zip(planned, self._read((rendered for _, rendered in planned), advance)):
            row.logp_old = -float(reading.nll.sum())

    def _read(self, rows: Iterable[Rendered], advance: Callable[[int], None]) -> Iterator[Reading]:
        return (Reading.of(read, self.reader.vocab) for read in self.reader.read(rows, on_batch=advance))

    def _rendered(self, example: Example) -> Rendered | None:
        try:
            return render(self.loaded.tokenizer, example)
        except (Unusable, UserError):  # a template may refuse turns that it was never meant for
            return None


OTHER_TOKENS = "its answer cannot be rendered after examples with the same tokens"


def _openers(rows: Iterable[Row]) -> set[int]:
    """Tokens with which the model would begin many answers, after examples, and no answer of the data begins."""
    shown = [row for row in rows if row.shown is not None]
    begin = {row.targets[-row.answer] for row in shown}
    said = Counter(row.shown.said[-row.answer] for row in shown if row.shown is not None)
    return {
        token for token, n in said.items() if n >= max(OPENER_ROWS, OPENER_SHARE * len(shown)) and token not in begin
    }


def _restates(begun: list[str], question: str) -> bool:
    """Whether a token begins to say the question again: it is a word of it, or three letters or more of one."""
    if len(begun) != 1:
        return False
    words = _words(question)
    return begun[0] in words or (len(begun[0]) >= 3 and any(word.startswith(begun[0]) for word in words))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def examples_help(rows: Iterable[Row]) -> dict[str, Any]:
    """Whether examples make the answers of the data likelier, by enough rows, and on the whole as well as in most.

    A model that was never shown examples, or one that already answers in the form of the data, is only confused by
    them; then the second reading says nothing of the form.

    Returns:
        `n` rows with both readings, mean nll of their answers (`first`, `shown`, nats a row), `better` (share of rows
        whose answer became likelier) and `trusted`.
    """
    pairs = [(_answer_nll(row), float(np.nansum(row.shown.nll))) for row in rows if row.shown is not None]
    if not pairs:
        return {"n": 0, "first": None, "shown": None, "better": None, "trusted": False}
    first, shown = np.array(pairs).T
    better = float((shown < first).mean())
    trusted = len(pairs) >= FEWEST and better > 0.5 and shown.mean() <= (1 - GAIN) * first.mean()
    return {
        "n": len(pairs),
        "first": round(float(first.mean()), 4),
        "shown": round(float(shown.mean()), 4),
        "better": round(better, 4),
        "trusted": bool(trusted),
    }


def logp_new(row: Row, trusted: bool) -> float:
    """Log-probability of the row's answer in the reading in which its outdated one was read; nats."""
    if trusted and row.shown is not None:
        return -float(np.nansum(row.shown.nll))
    return -_answer_nll(row)


def _answer_nll(row: Row) -> float:
    """nll of the answer alone at the first reading, which may have read the prompt too."""
    assert row.first is not None
    return float(row.first.nll[-row.answer :].sum())


def _aligned(reading: Reading, n: int) -> Reading:
    """A reading of the last tokens as one of all n, NaN before them."""
    missing = n - len(reading.nll)

    def filled(values: Floats) -> Floats:
        return np.concatenate([np.full(missing, np.nan), values])

    tail = None if reading.tail is None else filled(reading.tail)
    return Reading(
        filled(reading.nll), filled(reading.h), [-1] * missing + reading.said, filled(reading.logp_said), tail
    )


def _positions(model: Any) -> int | None:
    config = model.config
    given = getattr(
        config.get_text_config() if hasattr(config, "get_text_config") else config, "max_position_embeddings", None
    )
    return given if isinstance(given, int) and given > 0 else None


def _check(row: Row, reading: Reading, loaded: Loaded) -> None:
    sound = np.isfinite(reading.nll) & np.isfinite(reading.h)
    if sound.all():
        return
    at = int(np.flatnonzero(~sound)[0])
    raise UserError(
        f"the model gives no finite probability to token {at + 1} of {row.example.id!r}, "
        f"{loaded.tokenizer.decode([row.targets[at]])!r}",
        where=str(row.example.meta.get("source", row.example.id)),
        fix="its weights are damaged or too large for this precision: fetch them again, or set model.dtype=fp32",
    )
