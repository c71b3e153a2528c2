"""Prompts that the answer continues as they stand, without a chat template: code to complete, sentences to end.

As in lm-evaluation-harness, white space at the end of a prompt moves to the front of the answer before either is
tokenised, so that ` np.prod(x)` keeps the tokens that it has inside a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from equipoise.data.encoding import Span, encode
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.records import Message


def asked(messages: Sequence[Message]) -> str:
    """The prompt of a conversation in text form: what its one user said.

    Raises:
        UserError: there are other turns, which only a chat template could tell apart.
    """
    if [message.role for message in messages] != ["user"]:
        roles = ", ".join(message.role for message in messages) or "none"
        raise UserError(
            f"a prompt in text form is one text, and this conversation has these turns before its answer: {roles}",
            fix="put everything into one prompt, or leave `form` out to have the chat template render the turns",
            docs="docs/your-data.md#text-form",
        )
    return messages[0].content


def split(prompt: str, answer: str) -> tuple[str, str]:
    """Prompt and answer as they are tokenised: white space that ends the prompt begins the answer.

    >>> split("x = ", "np.prod(x)")
    ('x =', ' np.prod(x)')
    """
    kept = prompt.rstrip()
    return kept, prompt[len(kept) :] + answer


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids that training and generation see before an answer, with BOS where the tokenizer adds one."""
    return text_ids(tokenizer, split(prompt, "")[0])


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a whole text, with BOS where the tokenizer adds one; control tokens in it stay plain text."""
    return first_ids(tokenizer) + encode(tokenizer, text, [Span(0, len(text), False)])[0]


def answer_ids(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    """Token ids of an answer after `prompt_ids`, as it is tokenised behind its prompt."""
    context, continuation = split(prompt, answer)
    shift, spans = len(context), [Span(0, len(context), False)]
    before = encode(tokenizer, context, spans)[0]
    both = encode(tokenizer, context + continuation, [*spans, Span(shift, shift + len(continuation), True)])[0]
    if both[: len(before)] == before:
        return both[len(before) :]
    # a merge across the boundary: keep the prompt as generation will see it
    return encode(tokenizer, continuation, [Span(0, len(continuation), True)])[0]


def end_ids(tokenizer: Any, answer: str) -> list[int]:
    """What ends an answer: a line break after a single line, else the end of sequence.

    Raises:
        UserError: the tokenizer has no end of sequence.
    """
    if is_line(answer):
        return [] if answer.endswith("\n") else encode(tokenizer, "\n", [])[0]
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer does not say where an answer of several lines ends",
            fix="set the tokenizer's eos_token",
            docs="docs/your-data.md#text-form",
        )
    return [int(tokenizer.eos_token_id)]


def first_ids(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text: BOS, or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    return [int(token) for token in whole[:at]]


def is_line(answer: str) -> bool:
    """Whether an answer is one line, so that a line break ends it."""
    return "\n" not in answer.strip()


def cut(output: str, gold: str) -> str:
    """The answer in what a model wrote on from a prompt, whose right answer is `gold`.

    One line is looked for where gold is one, else everything up to the first line that leaves gold's indentation: a
    model that completes a file does not stop after the function.

    >>> cut(" np.prod(x)\\nprint(x)", " np.prod(x)")
    ' np.prod(x)'
    >>> cut("\\n    y = x\\n    return y\\n\\nprint(f(1))", "\\n    x += 1\\n    return x")
    '\\n    y = x\\n    return y'
    """
    body = output.lstrip()
    blank = output[: len(output) - len(body)]
    if is_line(gold):
        return blank + body.partition("\n")[0].rstrip("\r")
    if gold.strip("\n")[:1] not in (" ", "\t"):
        return output
    lines = output.split("\n")  # the first goes on where the prompt ends
    outside = (i for i, line in enumerate(lines) if i and line.strip() and line[0] not in " \t")
    return "\n".join(lines[: next(outside, len(lines))]).rstrip()


def has_ended(output: str, gold: str) -> bool:
    """Whether `cut` needs no more of the output: its line is complete, or the block that it began has been left."""
    return ("\n" in output.lstrip()) if is_line(gold) else cut(output, gold) != output.rstrip()
