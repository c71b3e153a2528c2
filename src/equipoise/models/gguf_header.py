"""The header of a GGUF file: what it says of its model, and which tensors it holds."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, unless the file says otherwise
MOST_DIMENSIONS = 8  # GGML itself has four


@dataclass(frozen=True)
class Header:
    """What a file says before its weights.

    Attributes:
        metadata: by key; arrays are left out.
        kinds: names of the formats of its tensors with more than one dimension.
        weights: numbers in all tensors.
        size: bytes that the file must have for all its tensors to be there.
    """

    metadata: dict[str, Any]
    kinds: frozenset[str]
    weights: int
    size: int


def read(path: Path) -> Header:
    """Read the header of a GGUF file, without its weights.

    Raises:
        ValueError: the file is not GGUF, of an unknown version, cut short within the header, or says what cannot be.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("it does not begin as a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header()
            except (struct.error, OverflowError, MemoryError, UnicodeDecodeError, KeyError) as error:
                raise ValueError("its header is cut short or damaged") from error


class _Reader:
    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 4

    def header(self) -> Header:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        version, tensors, entries = self.take("IQQ")
        if version not in VERSIONS:
            raise ValueError(f"it is of GGUF version {version}, and only {VERSIONS} are known")
        metadata = {}
        for _ in range(entries):
            key, (kind,) = self.text(), self.take("I")
            metadata[key] = self.value(kind)
        kinds, weights, end = set(), 0, 0
        for _ in range(tensors):
            self.text()
            (dimensions,) = self.take("I")
            if dimensions > MOST_DIMENSIONS:
                raise ValueError(f"it lists a tensor of {dimensions} dimensions")
            *shape, number, offset = self.take(f"{dimensions}QIQ")
            kind = GGMLQuantizationType(number)  # a ValueError names the number
            block, size = GGML_QUANT_SIZES[kind]
            weights, end = weights + prod(shape), max(end, offset + prod(shape) // block * size)
            kinds |= {kind.name} if dimensions > 1 else set()
        alignment = metadata.get("general.alignment") or ALIGNMENT
        return Header(metadata, frozenset(kinds), weights, -(-self.at // alignment) * alignment + end)

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def text(self) -> str:
        (length,) = self.take("Q")
        found = self.data[self.at : self.at + length]
        if len(found) < length:
            raise struct.error
        self.at += length
        return found.decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.take(FIXED[kind])[0]
        inner, count = self.take("IQ")
        if inner in FIXED:
            self.at += count * struct.calcsize(f"<{FIXED[inner]}")
        else:
            for _ in range(count):
                self.value(inner)
        return None
