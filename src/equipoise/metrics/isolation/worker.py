"""The process that runs the generated code. Nothing it says is believed: it gives values, the tester compares them."""

import operator
import sys
from collections.abc import Callable
from typing import Any

from equipoise.metrics.isolation.values import Channel, decode, encode

OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, /, *args, **named: function(*args, **named),
    "getattr": getattr,
    "setattr": setattr,
    "iter": iter,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
    **{
        name: getattr(operator, name)
        for name in ("getitem", "setitem", "delitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg")
    },
}


class Worker:
    """Run the code that the first request brings, then answer requests about what it defines."""

    def __init__(self, channel: Channel):
        self.channel = channel
        self.objects: list[Any] = []
        self.references: dict[int, list] = {}  # by id(); `objects` and `callbacks` hold what they refer to
        self.callbacks: list[Any] = []

    def serve(self) -> None:
        """Answer until the tester ends this process."""
        while True:
            self._answer(self.channel.receive())

    def _answer(self, request: dict) -> None:
        try:
            reply = self._run(request) if "code" in request else self._operate(request)
            self.channel.send(reply)
        except BaseException as error:  # an exit, too, is something the code did
            self.channel.send({"raise": self._describe(error)})

    @staticmethod
    def _describe(error: BaseException) -> list[str]:
        for kind in type(error).__mro__:  # a class of the code's own is caught as the built-in one that it extends
            if kind.__module__ == "builtins":
                break
        try:
            text = str(error)[:1000]
        except Exception:
            text = ""
        return [kind.__name__, text]

    def _run(self, request: dict) -> dict:
        module = type(sys)("answer")
        names = vars(module)
        sys.modules["answer"] = module  # dataclasses look their module up
        exec(compile(request["code"], "answer.py", "exec"), names)
        return {"value": encode({name: names[name] for name in request["names"] if name in names}, self._refer)}

    def _operate(self, request: dict) -> dict:
        args = decode(request["args"], self._resolve)
        named = decode(request["named"], self._resolve)
        value = OPERATIONS[request["operation"]](self.objects[request["object"]], *args, **named)
        reply = {"value": encode(value, self._refer)}
        after = encode(args, self._refer)
        if after != request["args"]:  # the code changed what it was given
            reply["args"] = after
        return reply

    def _refer(self, value: Any) -> list:
        if id(value) not in self.references:
            self.references[id(value)] = ["object", len(self.objects)]
            self.objects.append(value)
        return self.references[id(value)]

    def _resolve(self, tag: str, number: Any) -> Any:
        if tag == "object":
            return self.objects[number]

        def callback(*args: Any, **named: Any) -> Any:
            self.channel.send(
                {"callback": number, "args": encode(args, self._refer), "named": encode(named, self._refer)}
            )
            return self._result()

        self.callbacks.append(callback)
        self.references[id(callback)] = [tag, number]
        return callback

    def _result(self) -> Any:
        while True:
            message = self.channel.receive()
            if "operation" in message:  # the tests' function calls back into the code
                self._answer(message)
            elif "raise" in message:
                name, text = message["raise"]
                raise getattr(__import__("builtins"), name)(text)
            else:
                return decode(message["value"], self._resolve)
