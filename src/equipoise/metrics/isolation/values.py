"""Plain values as JSON, over pipes: what tester and worker say to each other. Nothing in it can run."""

import json
import os
from collections.abc import Callable
from typing import Any

LARGEST = 4 << 20  # bytes of one message; a tester that decodes the worst of them stays below its own memory limit
DEEPEST = 150
_TEXTUAL = {  # types of the standard library that their text gives back
    "decimal.Decimal": None,
    "fractions.Fraction": None,
    "datetime.date": "fromisoformat",
    "datetime.datetime": "fromisoformat",
    "datetime.time": "fromisoformat",
}
_SEQUENCES = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_MAKERS = {tag: kind for kind, tag in _SEQUENCES.items()}


class Malformed(Exception):
    """The other side did not keep to the protocol, or is gone."""


class Channel:
    """Messages over a pair of pipes, none larger than `LARGEST`."""

    def __init__(self, inlet: int, outlet: int):
        self.inlet, self.outlet = inlet, outlet

    def send(self, message: Any) -> None:
        """Write one message."""
        body = json.dumps(message, separators=(",", ":")).encode("ascii")
        if len(body) > LARGEST:
            raise ValueError(f"a message of {len(body)} bytes is larger than {LARGEST}")
        rest = memoryview(len(body).to_bytes(4, "big") + body)
        while rest:
            rest = rest[os.write(self.outlet, rest) :]

    def receive(self) -> Any:
        """Read one message; raise `Malformed` if it is none."""
        size = int.from_bytes(self._read(4), "big")
        if size > LARGEST:
            raise Malformed(f"a message of {size} bytes")
        try:
            return json.loads(self._read(size))
        except (ValueError, RecursionError) as error:
            raise Malformed(str(error)[:200]) from None

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self.inlet, min(size, 1 << 16))
            if not part:
                raise Malformed("the other side is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def encode(value: Any, refer: Callable[[Any], list], depth: int = DEEPEST) -> Any:
    """Return `value` as what JSON can hold. What is no plain value goes through `refer`, which gives a reference."""
    kind = _plain_kind(value)
    if kind in (type(None), bool, str, float):
        return kind(value) if kind is not type(None) else None
    if kind is int:
        return int(value) if -(1 << 63) <= value < 1 << 63 else ["int", hex(value)]
    if not depth:
        raise ValueError(f"a value is nested more than {DEEPEST} deep")
    if kind in _SEQUENCES:
        return [_SEQUENCES[kind], [encode(item, refer, depth - 1) for item in value]]
    if kind is dict:
        pairs = [[encode(key, refer, depth - 1), encode(item, refer, depth - 1)] for key, item in value.items()]
        return ["dict", pairs]
    if kind in (bytes, bytearray):
        return [kind.__name__, value.hex()]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is range:
        return ["range", *(encode(part, refer) for part in (value.start, value.stop, value.step))]
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name in _TEXTUAL:
        return [name, value.isoformat() if _TEXTUAL[name] else str(value)]
    return refer(value)


def _plain_kind(value: Any) -> type | None:
    """Return the built-in type that `value` counts as. Counter counts as dict; a class of the code's own as none."""
    kind = type(value)
    if kind.__module__ in ("builtins", "collections") or hasattr(kind, "_fields"):
        for base in kind.__mro__:
            if base.__module__ == "builtins" and base is not object:
                return base
    return None


def decode(data: Any, resolve: Callable[[str, Any], Any]) -> Any:
    """Return the value that `encode` wrote. References go to `resolve` with their tag and number."""
    try:
        return _decode(data, resolve)
    except (TypeError, ValueError, IndexError, AttributeError, RecursionError, ArithmeticError) as error:
        raise Malformed(str(error)[:200]) from None


def _decode(data: Any, resolve: Callable[[str, Any], Any]) -> Any:
    if not isinstance(data, list):
        if isinstance(data, dict):
            raise Malformed("an object where a value is due")
        return data
    tag, parts = data[0], data[1:]
    if tag in _MAKERS:
        return _MAKERS[tag]([_decode(item, resolve) for item in parts[0]])
    if tag == "dict":
        return {_decode(key, resolve): _decode(item, resolve) for key, item in parts[0]}
    if tag == "int":
        return int(parts[0], 16)
    if tag in ("bytes", "bytearray"):
        return (bytes if tag == "bytes" else bytearray).fromhex(parts[0])
    if tag == "complex":
        return complex(*parts)
    if tag == "range":
        return range(*(_decode(part, resolve) for part in parts))
    if tag in _TEXTUAL:
        module, _, name = tag.partition(".")
        maker = getattr(__import__(module), name)
        return (getattr(maker, _TEXTUAL[tag]) if _TEXTUAL[tag] else maker)(parts[0])
    return resolve(tag, parts[0])
