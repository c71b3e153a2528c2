"""Near duplicates among texts: MinHash signatures on disk, LSH one band at a time, exact Jaccard for what it finds."""

import re
import zlib
from array import array
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PERMUTATIONS = 128
RECALL = 0.99  # at the threshold; above it more
MARGIN = 0.15  # an estimate from 128 values has a standard error of at most 0.044
CROWD = 64  # a row is compared with so many others of a bucket, the first ones
_BLOCK = 2**13
_SEED = 1
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")


class Banding(NamedTuple):
    """How a signature is cut: two texts are candidates if all `rows` values of one of the `bands` agree."""

    bands: int
    rows: int

    def recall(self, similarity: float) -> float:
        """The probability that two texts of this Jaccard index become candidates."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def banding(threshold: float, permutations: int = PERMUTATIONS) -> Banding:
    """The cut with the fewest candidates that misses at most 1% of the pairs at the threshold."""
    cuts = (Banding(permutations // rows, rows) for rows in range(permutations, 0, -1))
    return next(cut for cut in cuts if cut.recall(threshold) >= RECALL or cut.rows == 1)


def shingles(text: str, size: int) -> set[str]:
    """The runs of `size` words of a text, in lower case; a shorter text is one shingle.

    Every sign counts as a word, and so does every character of a script that is written without spaces.
    """
    words = _WORD.findall(text.casefold())
    if len(words) <= size:
        return {" ".join(words)}
    return set(map(" ".join, zip(*(words[i:] for i in range(size)), strict=False)))


def jaccard(one: set[str], other: set[str]) -> float:
    """The share of the shingles of either text that both have."""
    return len(one & other) / len(one | other)


class Twin(NamedTuple):
    """The text that another one is a near duplicate of, by its number, and their Jaccard index."""

    of: int
    similarity: float


class NearDuplicates:
    """Texts by number, from 0, and which of them are near duplicates of earlier ones.

    Signatures (512 bytes a text) and texts lie in two files, so that adding one costs 8 bytes of memory. `twins` reads
    the signatures.

    Args:
        folder: where the two files are made, under `name`.
        threshold: the Jaccard index of the shingles, from 0 to 1, from which two texts are near duplicates.
        size: words in a shingle.
    """

    def __init__(self, folder: Path, name: str, threshold: float, size: int):
        from datasketch import MinHash

        self.threshold, self.size, self.cut = threshold, size, banding(threshold)
        self.crowded = 0  # how often a row was not compared with all others of its bucket
        self._paths = (folder / f"{name}.signatures", folder / f"{name}.texts")
        self._signatures, self._texts = (path.open("wb") for path in self._paths)
        self._ends = array("Q", [0])
        self._hash: Any = MinHash(PERMUTATIONS, seed=_SEED, hashfunc=zlib.crc32, scheme="affine32")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, text: str) -> None:
        """Add a text; its number is how many there were before."""
        self._hash.clear()
        found = [shingle.encode() for shingle in shingles(text, self.size)]
        for start in range(0, len(found), _BLOCK):  # a text of megabytes must not make a table of gigabytes
            self._hash.update_batch(found[start : start + _BLOCK])
        self._signatures.write(self._hash.hashvalues.tobytes())
        self._ends.append(self._ends[-1] + self._texts.write(text.encode()))

    def close(self) -> None:
        """Write out what was added; nothing more can be."""
        self._signatures.close()
        self._texts.close()

    def twins(self, *, among: int | None = None, skip: Collection[int] = ()) -> dict[int, Twin]:
        """For each text that is a near duplicate of an earlier one that stays, which one that is.

        The first of several stays; no text goes because of one that goes itself. An index below the threshold never
        makes a twin; one at it or above is found with the probability `cut.recall`.

        Args:
            among: compare only the first so many with the others.
            skip: numbers of texts that have no part in it.
        """
        self.close()
        values = np.fromfile(self._paths[0], dtype=np.uint32).reshape(-1, PERMUTATIONS)
        found: dict[int, Twin] = {}
        with self._paths[1].open("rb") as texts:

            @lru_cache(maxsize=1024)
            def words(number: int) -> set[str]:
                texts.seek(self._ends[number])
                return shingles(texts.read(self._ends[number + 1] - self._ends[number]).decode(), self.size)

            for later, earlier in self._candidates(values, among):
                if later in found or earlier in found or later in skip or earlier in skip:
                    continue
                similarity = jaccard(words(earlier), words(later))
                if similarity >= self.threshold:
                    found[later] = Twin(earlier, similarity)
        return found

    def _candidates(self, values: np.ndarray, among: int | None) -> Iterator[tuple[int, int]]:
        """Pairs of numbers, the later one first, in order of both; each once, at most `CROWD` for each later one."""
        pairs = np.empty(0, dtype=np.uint64)
        for band in range(self.cut.bands):
            fresh = list(self._band(values, band, among))
            if fresh:
                pairs = np.unique(np.concatenate([pairs, *fresh]))
                later = pairs >> np.uint64(32)
                rank = np.arange(len(pairs)) - np.searchsorted(later, later)
                pairs = pairs[rank < CROWD]
        for pair in pairs:
            yield int(pair) >> 32, int(pair) & 0xFFFFFFFF

    def _band(self, values: np.ndarray, band: int, among: int | None) -> Iterator[np.ndarray]:
        """The pairs that agree in a band, and about as much as the threshold asks over all values."""
        keys = _keys(values[:, band * self.cut.rows : (band + 1) * self.cut.rows])
        order = np.argsort(keys, kind="stable").astype(np.uint32)
        ranked = keys[order]
        del keys
        first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        sizes = np.diff(np.append(first, len(ranked)))
        first, sizes = first[sizes > 1], sizes[sizes > 1]
        self.crowded += int(np.maximum(sizes - 1 - CROWD, 0).sum())
        for offset in range(min(CROWD, int(sizes.max(initial=1)) - 1)):
            wide = sizes > offset + 1
            counts = sizes[wide] - offset - 1
            earlier = np.repeat(first[wide] + offset, counts)
            steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            yield from self._alike(values, order[earlier + 1 + steps], order[earlier], among)

    def _alike(
        self, values: np.ndarray, later: np.ndarray, earlier: np.ndarray, among: int | None
    ) -> Iterator[np.ndarray]:
        if among is not None:
            fits = (earlier < among) & (later >= among)
            later, earlier = later[fits], earlier[fits]
        for start in range(0, len(later), _BLOCK):
            a, b = later[start : start + _BLOCK], earlier[start : start + _BLOCK]
            near = (values[a] == values[b]).mean(axis=1) >= self.threshold - MARGIN
            if near.any():
                yield a[near].astype(np.uint64) << np.uint64(32) | b[near]


def _keys(values: np.ndarray) -> np.ndarray:
    """One number of 64 bits for each row of values."""
    keys = np.zeros(len(values), dtype=np.uint64)
    for column in values.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
