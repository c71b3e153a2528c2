"""Sentences and the entities in them, from CoNLL and JSONL files and the Hub, and how they are asked for."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.config import nearest
from equipoise.data.conll import ConllRows, is_conll
from equipoise.data.extraction_rows import FIELDS, Draft, parse_row
from equipoise.data.gathering import Dropped, Gathered, Ids, Rows, open_rows
from equipoise.data.hub import PREFIX
from equipoise.data.jsonl import BadRow, shown
from equipoise.data.label_names import Adapter, find
from equipoise.data.splits import split_groups
from equipoise.data.tags import OUTSIDE, chunks, scheme_of
from equipoise.errors import UserError
from equipoise.metrics.entities import Pair
from equipoise.metrics.text import plain
from equipoise.records import Entity, Sentence

INSTRUCTION = "Extract the entities as JSON. Types: {types}.\n{text}"
_FIELD = re.compile(r"\{(types|text)\}")
_OWN = Adapter({})


@dataclass(frozen=True)
class LoadedSentences:
    """What came of a source: sentences in order, the other rows, remarks, the hash of its content, and its types.

    Types are those that occur, in the order of the adapter or of `types`, else of their first occurrence.
    """

    sentences: list[Sentence]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str
    types: list[str]


def prompt(text: str, types: Sequence[str], instruction: str | None = None) -> str:
    """What the user says: an instruction in which {types} and {text} are replaced, and nothing else.

    Raises:
        UserError: the instruction has no place for the text.
    """
    instruction = INSTRUCTION if instruction is None else instruction
    if "{text}" not in instruction:
        raise UserError(
            "the instruction does not say where the sentence belongs",
            where="data.instruction",
            fix="write {text} in it",
        )
    said = {"types": ", ".join(types), "text": text}
    return _FIELD.sub(lambda field: said[field[1]], instruction)


def pairs(entities: Iterable[Entity]) -> tuple[Pair, ...]:
    """Entities as `metrics.entities` scores them."""
    return tuple((entity.type, entity.text) for entity in entities)


def load_sentences(
    source: str | Path,
    dataset: str,
    *,
    adapter: str | None = None,
    types: Mapping[str, str] | None = None,
    limit: int | None = None,
    max_bad_share: float = 0.05,
    labelled: bool = True,
) -> LoadedSentences:
    """Read sentences from words and their tags, or from texts and their entities.

    Words are joined by single spaces, in the text as in its entities. A row that cannot be used is dropped and listed;
    `meta["source"]` says where each one stands. The same text may stand in several rows, which is remarked on.

    Args:
        source: the path of a CoNLL or JSONL file or of one JSON array, or `hub:NAME:SPLIT`.
        dataset: the name of the domain that every sentence gets.
        adapter: a data set of `label_names.ADAPTERS`, for its labels and its column of tags.
        types: what a label is called here, before what the adapter calls it; labels that neither knows are an error.
        limit: keep the first so many.
        max_bad_share: the share of bad rows, from 0 to 1, above which the whole source is refused.
        labelled: whether a row without entities is a bad one; else it is a sentence that nobody labelled.

    Raises:
        UserError: the source cannot be read, has no usable row or too many bad ones, one id names two texts, or a tag
            is of no known scheme or has an unknown label.
    """
    known = _OWN if adapter is None else find(adapter)
    path = Path(source).expanduser()
    conll = not str(source).startswith(PREFIX) and is_conll(path)
    rows = ConllRows(path) if conll else open_rows(source, FIELDS)
    parser = _Parser(rows, known, labelled)
    gathered = Gathered(rows, parser.parse)
    gathered.check(max_bad_share)
    named = _Named(rows, known, adapter, types or {})
    scheme = named.scheme(gathered.kept)
    sentences = [
        Sentence(
            id=draft.id or parser.ids.for_line(line),
            text=draft.text,
            dataset=dataset,
            entities=named.entities(line, draft),
            meta=draft.meta | {"source": rows.where(line)},
        )
        for line, draft in gathered.kept[:limit]
    ]
    notes = [*rows.notes, *gathered.notes(FIELDS), *scheme, *_repeated(sentences)]
    return LoadedSentences(sentences, gathered.dropped, notes, rows.sha256, named.occurring(sentences))


def split_sentences(
    sentences: Sequence[Sentence], shares: Mapping[str, float], *, seed: int
) -> dict[str, list[Sentence]]:
    """Set sentences apart by `split_groups`, so that no text stands in two splits.

    Raises:
        UserError: a share is negative or no number, or their sum is not 1.
    """
    return split_groups(sentences, shares, seed)


class _Parser:
    """From rows to drafts, with what is needed to know an id again."""

    def __init__(self, rows: Rows, adapter: Adapter, labelled: bool):
        self.adapter, self.labelled = adapter, labelled
        self.ids: Ids[str] = Ids(rows)
        self.first: dict[str, int] = {}

    def parse(self, values: dict[str, Any], line: int) -> tuple[Draft, list[str]]:
        """Read a row and check that it is not there already."""
        draft = parse_row(values, column=self.adapter.column, labelled=self.labelled)
        if draft.id is not None:
            self.ids.check(draft.id, line, plain(draft.text))
            first = self.first.setdefault(draft.id, line)
            if first != line:
                raise BadRow(f"the same id and text as line {first}", "id")
        return draft, draft.unknown


class _Named:
    """The labels of a source, and what they are called here."""

    def __init__(self, rows: Rows, adapter: Adapter, name: str | None, types: Mapping[str, str]):
        self.rows, self.bare = rows, adapter.bare
        self.owner = "of data.types" if name is None else f"that {name} has"
        names = {**adapter.types, **types}
        self.names = {said: said for said in names.values()} | names  # a type may be called so already

    def scheme(self, kept: Iterable[tuple[int, Draft]]) -> list[str]:
        """Remarks on how all tags together are spelled."""
        tagged = {line: draft for line, draft in kept if draft.tags is not None}
        if not tagged:
            return []
        spelled = ((line, self._tags(draft)) for line, draft in tagged.items())
        scheme, remarks = scheme_of(spelled, lambda line, at: self._where(line, tagged[line], at))
        return [f"tags are {scheme}", *remarks]

    def entities(self, line: int, draft: Draft) -> list[Entity] | None:
        """The entities of a row under their names here."""
        if draft.tags is not None:
            found = [(kind, " ".join(draft.words[at:to]), at) for kind, at, to in chunks(self._tags(draft))]
        elif draft.entities is not None:
            found = [(kind, text, None) for kind, text in draft.entities]
        else:
            return None
        return [Entity(type=self._name(kind, line, draft, at), text=text) for kind, text, at in found]

    def occurring(self, sentences: Iterable[Sentence]) -> list[str]:
        """The types of sentences, in the order of the names if there are any."""
        found = dict.fromkeys(entity.type for sentence in sentences for entity in sentence.entities or ())
        order = {kind: at for at, kind in enumerate(dict.fromkeys(self.names.values()))}
        return sorted(found, key=lambda kind: order.get(kind, 0))

    def _tags(self, draft: Draft) -> list[str]:
        tags = draft.tags or ()
        return [tag if tag == OUTSIDE else f"I-{tag}" for tag in tags] if self.bare else list(tags)

    def _name(self, kind: str, line: int, draft: Draft, at: int | None) -> str:
        if not self.names or kind in self.names:
            return self.names.get(kind, kind)
        guess = nearest(kind, self.names)
        raise UserError(
            f"the label {shown(kind, 40)!r} is none {self.owner}" + (f"; did you mean {guess!r}?" if guess else ""),
            where=self.rows.where(line, "entities") if at is None else self._where(line, draft, at),
            fix="correct it, or name it in `types`",
            docs="docs/extraction-data.md#adapters",
        )

    def _where(self, line: int, draft: Draft, at: int) -> str:
        if isinstance(self.rows, ConllRows):
            return self.rows.where(line + at)
        return self.rows.where(line, f"{draft.column}[{at}]")


def _repeated(sentences: Sequence[Sentence]) -> list[str]:
    labels: dict[str, set[tuple[Pair, ...]]] = {}
    for sentence in sentences:
        labels.setdefault(plain(sentence.text), set()).add(pairs(sentence.entities or ()))
    times = Counter(len(found) for found in labels.values())
    more, differing = len(sentences) - len(labels), times.total() - times[1]
    if not more:
        return []
    others = f"; the rows of {differing} of these texts differ in their entities" if differing else ""
    return [f"{more} row{'s repeat' if more > 1 else ' repeats'} the text of another{others}"]
