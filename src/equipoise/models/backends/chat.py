"""OpenAI's chat protocol as servers really speak it: what is asked, and what their answers hold."""

import json
import math
from collections.abc import Sequence
from typing import Any

from equipoise.models.backends.interface import Reply, Request
from equipoise.models.backends.servers import Failure
from equipoise.models.backends.settings import BackendSettings

# What a server may not know, and how a refusal names it; they are left out then.
OPTIONAL = ("chat_template_kwargs", "reasoning_effort", "top_logprobs", "logprobs", "seed", "n")


def body(model: str, requests: Sequence[Request], settings: BackendSettings, refused: set[str]) -> dict[str, Any]:
    """The fields of a request for one answer, or, for several requests of one prompt, with `n`."""
    first = requests[0]
    out: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in first.messages],
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_completion_tokens" if "max_tokens" in refused else "max_tokens": settings.max_new_tokens,
        "seed": first.seed,
    }
    if len(requests) > 1:
        out["n"] = len(requests)
    if settings.logprobs and "logprobs" not in refused:
        out |= {"logprobs": True, "top_logprobs": 1}  # llama-cpp-python tells of none without the second
    if not settings.enable_thinking:
        if settings.backend == "ollama":
            out["reasoning_effort"] = "none"
        else:
            out["chat_template_kwargs"] = {"enable_thinking": False, "thinking": False}
    return {name: value for name, value in out.items() if name not in refused}


def unknown(message: str, sent: dict[str, Any]) -> str | None:
    """The parameter that a refusal is about, if the request can do without it or say it otherwise."""
    if "max_completion_tokens" in message and "max_tokens" in sent:
        return "max_tokens"
    named = [name for name in OPTIONAL if name in sent and len(name) > 1 and name in message]
    if "n" in sent and not named and any(form in message for form in ("'n'", '"n"', "`n`", "parameter n ")):
        return "n"
    return named[0] if named else None


def replies(text: str, requests: Sequence[Request]) -> list[Reply]:
    """The answers in what a server sent with status 200; fewer than asked for where it ignores `n`.

    Raises:
        Failure: it is no JSON, or holds no answer.
    """
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError):
        begin = " ".join(text.split())[:60]
        raise Failure(f"what came is not whole JSON: {ascii(begin)[1:-1] or 'nothing'}") from None
    if isinstance(sent, dict) and sent.get("error"):
        raise Failure(f"an error came as an answer: {ascii(sent['error'])[:200]}")
    choices = sent.get("choices") if isinstance(sent, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Failure("the answer has no choices")
    counted = sent.get("usage") if len(choices) == 1 else None
    tokens = counted.get("completion_tokens") if isinstance(counted, dict) else None
    return [_reply(request, choice, tokens) for request, choice in zip(requests, choices)]


def _reply(request: Request, choice: Any, tokens: Any) -> Reply:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Failure("a choice has no message")
    # what servers call the thinking that they keep apart: vLLM and Ollama the one, SGLang and llama.cpp the other
    thought = message.get("reasoning") or message.get("reasoning_content") or ""
    content = message.get("content")
    if content is None and ("content" not in message or not (thought or "refusal" in message)):
        raise Failure("a message has no content")
    if not isinstance(content, str | None):
        raise Failure("the content of a message is no text")
    logprobs = _logprobs(choice)
    return Reply(
        request.key,
        content or "",
        "length" if choice.get("finish_reason") == "length" else "stop",
        len(logprobs) if logprobs else tokens if isinstance(tokens, int) and tokens >= 0 else None,
        sum(logprobs) if logprobs else None,
        min(logprobs) if logprobs else None,
        len(thought) if isinstance(thought, str) else 0,
    )


def _logprobs(choice: dict[str, Any]) -> list[float]:
    """Log-probabilities of the tokens; none where one is missing or no finite number, as sums would be wrong."""
    held = choice.get("logprobs")
    content = held.get("content") if isinstance(held, dict) else None
    if not isinstance(content, list):
        return []
    found = [one.get("logprob") if isinstance(one, dict) else None for one in content]
    numbers = [float(x) for x in found if isinstance(x, int | float) and math.isfinite(x) and x > -9000]
    return numbers if len(numbers) == len(found) else []
