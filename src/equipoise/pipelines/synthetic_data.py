"""Sentences of the source and the target domain in their splits, from files, hubs or the testbed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.data.extraction import load_sentences, split_sentences
from equipoise.data.splits import check_disjoint_sentences
from equipoise.errors import UserError
from equipoise.pipelines.synthetic_settings import ExtractionDomain, SyntheticRecipe
from equipoise.records import Sentence
from equipoise.testbed import ner

TESTBED = "testbed:"
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Domain:
    """The sentences of a domain, and the types that are asked for."""

    types: tuple[str, ...]
    train: list[Sentence]
    dev: list[Sentence]
    test: list[Sentence]


@dataclass(frozen=True)
class Sources:
    """Both domains, remarks on how they were read, every row left out, and hashes of what was read."""

    source: Domain
    target: Domain
    notes: list[str]
    dropped: list[dict[str, str]]
    hashes: dict[str, str]

    def named(self) -> dict[str, Domain]:
        """The domains by name, the target first."""
        return {"target": self.target, "source": self.source}


def load_sources(recipe: SyntheticRecipe) -> Sources:
    """Read both domains.

    Raises:
        UserError: a file cannot be read, has no usable row, or the same sentence stands in two splits.
    """
    notes: list[str] = []
    dropped: list[dict[str, str]] = []
    hashes: dict[str, str] = {}
    found = {}
    for name in ("source", "target"):
        parts, types = _read(recipe, name, notes, dropped, hashes)
        for split in SPLITS:
            if not parts[split]:
                raise UserError(
                    f"the {name} domain has no {split} sentences",
                    where=f"{name}.{split}",
                    fix=f"give {name}.{split} a file, or data.{split if split != 'train' else 'test'} another share",
                )
        found[name] = Domain(types, **parts)
    return Sources(found["source"], found["target"], notes, dropped, hashes)


def _read(
    recipe: SyntheticRecipe, name: str, notes: list[str], dropped: list[dict[str, str]], hashes: dict[str, str]
) -> tuple[dict[str, list[Sentence]], tuple[str, ...]]:
    domain: ExtractionDomain = getattr(recipe, name)
    if domain.train.startswith(TESTBED):
        return _testbed(domain, name, hashes)
    parts: dict[str, list[Sentence]] = {}
    types: list[str] = []
    for split in SPLITS:
        source = getattr(domain, split)
        if source is None:
            continue
        loaded = load_sentences(
            source,
            name,
            adapter=domain.adapter,
            max_bad_share=recipe.data.max_bad_share,
            labelled=not (split == "train" and name == "target"),
        )
        # rows of several files without ids would share theirs
        parts[split] = [s.model_copy(update={"id": f"{split}-{s.id}"}) for s in loaded.sentences]
        notes += [f"{name}.{split}: {note}" for note in loaded.notes]
        dropped += [{"where": f"{source}:{row.line}", "reason": row.reason} for row in loaded.dropped]
        hashes[f"{name}.{split}"] = loaded.sha256
        types += [kind for kind in loaded.types if kind not in types]
    shares = {split: getattr(recipe.data, split) for split in SPLITS[1:] if split not in parts}
    if shares:
        cut = split_sentences(parts["train"], {"train": 1 - sum(shares.values()), **shares}, seed=0)
        parts |= {split: _labelled(cut[split]) for split in shares} | {"train": cut["train"]}
    limited = {split: rows[: domain.limit] for split, rows in parts.items()}
    for split in SPLITS[1:]:
        check_disjoint_sentences(limited["train"], limited[split])
    check_disjoint_sentences(limited["dev"], limited["test"])
    return limited, tuple(domain.types or types)


def _labelled(sentences: Sequence[Sentence]) -> list[Sentence]:
    return [sentence for sentence in sentences if sentence.entities is not None]


def _testbed(
    domain: ExtractionDomain, name: str, hashes: dict[str, str]
) -> tuple[dict[str, list[Sentence]], tuple[str, ...]]:
    part = domain.train.removeprefix(TESTBED)
    if part not in ner.TYPES:
        raise UserError(
            f"the testbed has no sentences {part!r}", where=f"{name}.train", fix=f"one of {', '.join(ner.TYPES)}"
        )
    parts = {split: ner.load(part, split)[: domain.limit] for split in SPLITS}
    text = json.dumps([[s.model_dump() for s in rows] for rows in parts.values()])
    hashes[name] = hashlib.sha256(text.encode()).hexdigest()
    renamed = {split: [s.model_copy(update={"dataset": name}) for s in rows] for split, rows in parts.items()}
    return renamed, tuple(domain.types or ner.TYPES[part])
