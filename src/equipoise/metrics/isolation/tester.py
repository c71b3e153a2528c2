"""The process that runs the unit tests: it has the code's functions as stand-ins, and compares plain values."""

import builtins
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import CodeType
from typing import Any

from equipoise.metrics.isolation.values import Channel, Malformed, decode, encode


class Unsendable(BaseException):
    """The tests give the code a value that cannot be sent; theirs is the fault, and no `except Exception` hides it."""


class Broken(BaseException):
    """The worker is gone or broke the protocol."""


class Link:
    """Requests to the worker. Once it breaks the protocol it stays broken, whatever the tests catch."""

    def __init__(self, channel: Channel):
        self.channel = channel
        self.broken = False
        self.callbacks: list[Any] = []

    def run(self, code: str, names: list[str]) -> dict[str, Any]:
        """Let the worker run `code`; return what it then has under `names`."""
        found = self._exchange({"code": code, "names": names}, [])
        if not isinstance(found, dict):
            raise self._break("names are due")
        return {name: found[name] for name in names if name in found}  # and none that was not asked for

    def operate(self, operation: str, target: int, args: tuple, named: dict[str, Any]) -> Any:
        """Return what `operation` gives for object number `target` of the worker."""
        request = {
            "operation": operation,
            "object": target,
            "args": self._encode(list(args)),
            "named": self._encode(named),
        }
        return self._exchange(request, list(args), stops=operation == "next")

    def _exchange(self, request: dict, args: list, *, stops: bool = False) -> Any:
        if self.broken:
            raise Broken
        self._guarded(self.channel.send, request)
        while "callback" in (reply := self._guarded(self._receive)):
            self._call_back(reply)
        if "raise" in reply:
            raise self._exception(reply["raise"], stops=stops)
        value = self._decode(reply.get("value"))
        if "args" in reply:
            changed = self._decode(reply["args"])
            for old, new in zip(args, changed if isinstance(changed, list) else [], strict=False):
                update(old, new)
        return value

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except (Malformed, OSError, MemoryError) as error:
            raise self._break(str(error)) from None

    def _decode(self, data: Any) -> Any:
        return self._guarded(decode, data, self._resolve)

    def _receive(self) -> dict:
        reply = self.channel.receive()
        if not isinstance(reply, dict):
            raise Malformed("a reply is due")
        return reply

    def _break(self, why: str) -> Broken:
        self.broken = True
        return Broken(why)

    def _exception(self, what: Any, *, stops: bool) -> BaseException:
        name, text = what if isinstance(what, list) and len(what) == 2 else (None, None)
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            return self._break("an exception is due")
        if not issubclass(kind, Exception):
            return self._break(f"the code raised {name}")  # SystemExit and its like are no answer
        if issubclass(kind, (StopIteration, StopAsyncIteration)) and not stops:
            return RuntimeError(f"the code raised {name}")  # would cut `all(map(...))` short, which then is true
        for base in kind.__mro__:  # UnicodeDecodeError and its like take more than a text; what they extend does not
            with suppress(TypeError):
                return base(str(text))
        return Exception(str(text))

    def _call_back(self, message: dict) -> None:
        number, args, named = message["callback"], self._decode(message.get("args")), self._decode(message.get("named"))
        known = type(number) is int and 0 <= number < len(self.callbacks)
        if not (known and isinstance(args, tuple) and isinstance(named, dict)):
            raise self._break("a call of a function of the tests is due")
        try:
            result = {"value": self._encode(self.callbacks[number](*args, **named))}
        except Exception as error:
            kind = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
            result = {"raise": [kind.__name__, str(error)[:1000]]}
        self._guarded(self.channel.send, result)

    def _encode(self, value: Any) -> Any:
        return encode(value, self._refer)

    def _refer(self, value: Any) -> list:
        if type(value) is Stand:
            return ["object", object.__getattribute__(value, "_number")]
        if not callable(value):
            raise Unsendable(f"the unit tests give the code a {type(value).__name__}, which cannot be sent to it")
        if not any(value is known for known in self.callbacks):
            self.callbacks.append(value)
        return ["function", next(n for n, known in enumerate(self.callbacks) if known is value)]

    def _resolve(self, tag: str, number: Any) -> Any:
        if tag == "object" and type(number) is int:
            return Stand(self, number)
        if tag == "function" and type(number) is int:
            return self.callbacks[number]
        raise Malformed(f"an unknown kind of value: {str(tag)[:50]}")


class Stand:
    """Stands for an object of the worker that is no plain value: a function, a class, an instance, an iterator.

    What it does is asked of the worker, save what would be the worker's word for its own rightness: comparison,
    membership, arithmetic with a plain value (`f(x) - 9` could be 0 for every 9), and `startswith` and its like.
    """

    __slots__ = ("_link", "_number")

    def __init__(self, link: Link, number: int):
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name in JUDGING or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"an object of the code under test is not asked for {name!r}")
        return _ask(self, "getattr", (name,))

    def __call__(self, /, *args: Any, **named: Any) -> Any:
        return _ask(self, "call", args, named)

    def __hash__(self) -> int:
        return object.__getattribute__(self, "_number")


JUDGING = {"startswith", "endswith"} | {
    name for kind in (str, bytes, set, int, float) for name in dir(kind) if name.startswith("is")
}


def _ask(stand: Stand, operation: str, args: tuple, named: dict[str, Any] | None = None) -> Any:
    link, number = (object.__getattribute__(stand, name) for name in ("_link", "_number"))
    return link.operate(operation, number, args, named or {})


def _asking(operation: str) -> Any:
    return lambda self, *args: _ask(self, operation, args)


def _combining(operation: str) -> Any:
    def combine(self: Stand, other: Any) -> Any:
        return _ask(self, operation, (other,)) if type(other) is Stand else NotImplemented

    return combine


def _refusing(self: Stand, other: Any) -> Any:
    raise TypeError("an object of the code under test cannot be compared; compare the values it gives")


for _name in ("setattr", "iter", "next", "len", "bool", "str", "repr", "getitem", "setitem", "delitem", "neg"):
    setattr(Stand, f"__{_name}__", _asking(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Stand, f"__{_name}__", _combining(_name))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "contains"):
    setattr(Stand, f"__{_name}__", _refusing)


def update(old: Any, new: Any) -> None:
    """Bring what the code did to an argument into the tests' own object."""
    if isinstance(old, (list, bytearray)) and type(old) is type(new):
        old[:] = new
    elif isinstance(old, (dict, set)) and isinstance(new, (dict, set)):
        old.clear()
        old.update(new)


def names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that compiled code looks up, attributes among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


def passes(channel: Channel, job: dict) -> bool:
    """Tell whether the worker's functions pass the tests of `job` (keys: code, tests, modules, entry_point).

    The tests' own names and the built-in ones win over the code's: code that defines `len` does not change the tests.
    The one exception is `entry_point`. Tests that define `check` are called with it, as HumanEval's are.
    """
    compiled = compile(job["tests"], "tests.py", "exec")
    entry_point = job["entry_point"]
    wanted = {name for name in names_in(compiled) if not (hasattr(builtins, name) or name.startswith("__"))}
    wanted |= {entry_point} - {None}
    link = Link(channel)
    try:
        names = {"__name__": "tests", **link.run(job["code"], sorted(wanted))}
        candidate = names.get(entry_point) if entry_point else None
        if entry_point and candidate is None:
            return False
        for module in job["modules"]:
            with suppress(ImportError):  # a name of Windows' modules, which here is some variable's
                names[module] = __import__(module)
        exec(compiled, names)
        if entry_point and "check" in compiled.co_names and callable(names.get("check")):
            names["check"](candidate)
    except Unsendable:
        raise
    except BaseException:
        return False
    return not link.broken
