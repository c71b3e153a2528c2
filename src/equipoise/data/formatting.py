"""From messages to token ids and labels: one rendering, in chat or text form, for training and for generation."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from equipoise.data import text_form
from equipoise.data.encoding import Span, encode
from equipoise.data.jsonl import BadRow
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.records import Example, Form, Message

IGNORE = -100
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)


class Unusable(ValueError):
    """This example cannot be trained on; the text is the reason."""


@dataclass(frozen=True)
class Rendered:
    """One example as the model sees it: `input_ids` and `labels` of length T, labels -100 where not supervised."""

    input_ids: list[int]
    labels: list[int]

    @property
    def supervised(self) -> int:
        """How many tokens carry a loss. The first token never does: nothing predicts it."""
        return sum(label != IGNORE for label in self.labels[1:])


@dataclass(frozen=True)
class Formatted:
    """Examples that can be trained on, in order, with their ids; `dropped` holds (id, reason) of the others."""

    rows: list[Rendered] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class AnswerParts:
    """Token ids of what the model sees, of its answer, and of what ends its turn."""

    prompt: list[int]
    answer: list[int]
    end: list[int]


def render(
    tokenizer: Any, example: Example, *, train_on_prompt: bool = False, max_length: int | None = None
) -> Rendered:
    """Token ids and labels of one example; the answer and its end-of-turn token are supervised.

    The prompt's tokens are exactly those of `render_prompt`, so training sees what generation will see. A control
    token that a message spells out (`<|im_end|>`, an added token) stays plain text.

    Raises:
        Unusable: the answer is empty, or it does not fit into `max_length`, or no token is supervised.
        UserError: the tokenizer has no chat template, no end-of-sequence token where one is needed, or no offsets.
    """
    parts = answer_parts(tokenizer, example.messages, form=example.form)
    ids = parts.prompt + parts.answer + parts.end
    return supervise(ids, range(0 if train_on_prompt else len(parts.prompt), len(ids)), max_length)


def answer_parts(tokenizer: Any, messages: Sequence[Message], *, form: Form = "chat") -> AnswerParts:
    """Token ids of a conversation that ends in an answer, cut where that answer begins and where it ends.

    Raises:
        Unusable: the answer is empty.
        UserError: as `render`.
    """
    if not messages or messages[-1].role != "assistant" or not messages[-1].content.strip():
        raise Unusable("the answer is empty")
    if form == "text":
        return _text_parts(tokenizer, text_form.asked(messages[:-1]), messages[-1].content)
    text, spans = _conversation(tokenizer, messages, generation_prompt=False)
    prompt_text, prompt_spans = _conversation(tokenizer, messages[:-1], generation_prompt=True)
    ids, offsets = encode(tokenizer, text, spans)
    answer = spans[-1]
    if text.startswith(prompt_text) and len(prompt_text) <= answer.start:
        prompt_ids, _ = encode(tokenizer, prompt_text, prompt_spans)
        start = len(prompt_ids)
        if ids[:start] != prompt_ids:  # a merge across the boundary: keep the prompt as generation will see it
            shift = len(prompt_text)
            tail = [Span(answer.start - shift, answer.end - shift, True)]
            tail_ids, tail_offsets = encode(tokenizer, text[shift:], tail)
            ids = prompt_ids + tail_ids
            offsets = [(0, 0)] * start + [(a + shift, b + shift) for a, b in tail_offsets]
    else:
        start = next((i for i, (_, end) in enumerate(offsets) if end > answer.start), len(ids))
    after = next((i for i, (begin, end) in enumerate(offsets) if begin >= answer.end and end > begin), len(ids))
    last = ids[start:after]
    begin, end = offsets[after - 1]
    if end > answer.end > begin >= answer.start:  # a token that runs on into the template: `.` and two line breaks
        last[-1:] = encode(tokenizer, text[begin : answer.end], [Span(0, answer.end - begin, True)])[0]
    return AnswerParts(ids[:start], last, _end_of_turn(tokenizer, ids[after:]))


def _text_parts(tokenizer: Any, prompt: str, answer: str) -> AnswerParts:
    before = text_form.prompt_ids(tokenizer, prompt)
    if not before:
        raise Unusable("the prompt is empty")
    ids = text_form.answer_ids(tokenizer, prompt, answer)
    return AnswerParts(before, ids, text_form.end_ids(tokenizer, answer))


def render_prompt(tokenizer: Any, conversation: Example | Sequence[Message], *, form: Form | None = None) -> list[int]:
    """Token ids of the prompt with the generation prompt appended; an `Example` contributes all but its answer.

    Args:
        form: that of the example, or `chat`, unless given.
    """
    given: Any = getattr(conversation, "messages", conversation)
    messages: list[Message] = list(given)
    if messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    if (form or getattr(conversation, "form", "chat")) == "text":
        return text_form.prompt_ids(tokenizer, text_form.asked(messages))
    return encode(tokenizer, *_conversation(tokenizer, messages, generation_prompt=True))[0]


def render_all(
    tokenizer: Any,
    examples: Iterable[Example],
    *,
    train_on_prompt: bool = False,
    max_length: int | None = None,
    max_bad_share: float = 0.05,
) -> Formatted:
    """Render every example; those that cannot be trained on are listed with their reason.

    Raises:
        UserError: more than `max_bad_share` of the examples, or all of them, cannot be used.
    """
    return keep_usable(
        (
            (x.id, partial(render, tokenizer, x, train_on_prompt=train_on_prompt, max_length=max_length))
            for x in examples
        ),
        max_bad_share,
    )


def keep_usable(rows: Iterable[tuple[str, Callable[[], Rendered]]], max_bad_share: float) -> Formatted:
    """Render rows by id; those that raise `Unusable` or `BadRow` are listed with their reason.

    Raises:
        UserError: more than `max_bad_share` of them, or all of them, cannot be used.
    """
    out = Formatted()
    for name, rendering in rows:
        try:
            rendered = rendering()
        except (Unusable, BadRow) as reason:
            out.dropped.append((name, str(reason)))
            continue
        out.rows.append(rendered)
        out.ids.append(name)
    refuse_many(len(out.rows), out.dropped, max_bad_share, "examples")
    return out


def refuse_many(
    kept: int, dropped: Sequence[tuple[str, str]], max_bad_share: float, what: str, section: str = "training"
) -> None:
    """Refuse data of which nothing is kept or too much is dropped, naming the first of (id, reason).

    Raises:
        UserError: more than `max_bad_share` of it, or all of it, cannot be used.
    """
    total = kept + len(dropped)
    if not kept or len(dropped) > max_bad_share * total:
        first = "; ".join(f"{row}: {reason}" for row, reason in dropped[:3]) or f"there are no {what}"
        raise UserError(
            f"{len(dropped)} of {total} {what} cannot be trained on ({first})",
            fix=f"raise {section}.max_length, mend the rows, or raise {section}.max_bad_share",
            docs="docs/your-data.md#dropped-rows",
        )


def with_mask(tokenizer: Any, row: Rendered) -> str:
    """A row as text, in which what carries loss stands in »«."""
    spans = groupby(zip(row.input_ids, row.labels, strict=True), lambda pair: pair[1] != IGNORE)
    texts = ((supervised, tokenizer.decode([token for token, _ in span])) for supervised, span in spans)
    return "".join(f"»{text}«" if supervised else text for supervised, text in texts)


def end_of_turn_ids(tokenizer: Any) -> list[int]:
    """Token ids that end an answer: the tokenizer's end of sequence and the chat template's end of turn."""
    stops = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    if tokenizer.chat_template is not None:
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Qx0001xQ"}]
        tail = _apply(tokenizer, turns, False).partition("Qx0001xQ")[2]
        ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
        stops += [i for i in ids[:1] if i in tokenizer.added_tokens_decoder and i not in stops]
    return stops


def supervise(ids: list[int], at: Container[int], max_length: int | None) -> Rendered:
    """Labels at the positions `at`.

    Raises:
        Unusable: they are more than `max_length`, or none is supervised.
    """
    if max_length is not None and len(ids) > max_length:
        raise Unusable(f"truncation to {max_length} tokens would remove the answer's end ({len(ids)} tokens)")
    rendered = Rendered(ids, [token if i in at else IGNORE for i, token in enumerate(ids)])
    if not rendered.supervised:
        raise Unusable("no token is supervised")
    return rendered


def _end_of_turn(tokenizer: Any, ids: list[int]) -> list[int]:
    """What follows the answer, up to the end-of-turn token; where the template has none, eos."""
    added = tokenizer.added_tokens_decoder
    for i, token in enumerate(ids):
        if token == tokenizer.eos_token_id or (token in added and added[token].special):
            return ids[: i + 1]
    if tokenizer.eos_token_id is None:
        raise UserError(
            "neither the chat template nor the tokenizer says where an answer ends",
            fix="set the tokenizer's eos_token, or give it a chat template that ends a turn with a special token",
            docs="docs/your-data.md#chat-template",
        )
    return [int(tokenizer.eos_token_id)]


def _conversation(tokenizer: Any, messages: Sequence[Message], *, generation_prompt: bool) -> tuple[str, list[Span]]:
    """The rendered text, and where in it each message's content stands."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = _apply(tokenizer, turns, generation_prompt)
    marks = _marks(turns, text)
    skeleton = _apply(tokenizer, [{**t, "content": m} for t, m in zip(turns, marks)], generation_prompt)
    for contents in ([t["content"] for t in turns], [t["content"].strip() for t in turns]):
        filled, spans = _fill(skeleton, marks, contents, turns)
        if filled == text:
            return text, spans
    return text, _search(text, turns)


def _marks(turns: list[dict[str, str]], text: str) -> list[str]:
    salt = 0
    while f"Qx{salt}x" in text:
        salt += 1
    return [f"Qx{salt}x{i:04d}xQ" for i in range(len(turns))]


def _fill(skeleton: str, marks: list[str], contents: list[str], turns: list[dict[str, str]]) -> tuple[str, list[Span]]:
    out, spans, rest = "", [], skeleton
    for mark, content, turn in zip(marks, contents, turns):
        before, found, rest_after = rest.partition(mark)
        if not found:
            continue
        out += before
        spans.append(Span(len(out), len(out) + len(content), turn["role"] == "assistant"))
        out, rest = out + content, rest_after
    return out + rest, spans


def _search(text: str, turns: list[dict[str, str]]) -> list[Span]:
    """For templates that treat contents differently by what they say: find each content in order."""
    spans, cursor = [], 0
    for turn in turns:
        content = turn["content"].strip()
        at = text.find(content, cursor)
        if at < 0:
            raise UserError(
                f"the chat template changes the text of a {turn['role']} message, so its tokens cannot be told apart",
                fix="use a chat template that inserts message contents as they are",
                docs="docs/your-data.md#chat-template",
            )
        cursor = at + len(content)
        spans.append(Span(at, cursor, turn["role"] == "assistant"))
    return spans


def _apply(tokenizer: Any, turns: list[dict[str, str]], generation_prompt: bool) -> str:
    import jinja2

    if tokenizer.chat_template is None:
        raise UserError(
            "the tokenizer has no chat template",
            where="model.chat_template",
            fix="set model.chat_template to `plain` (for base models) or to the path of a Jinja template",
            docs="docs/your-data.md#chat-template",
        )
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)
    except jinja2.TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(
            f"the chat template refuses a conversation of {roles}: {error}",
            fix="change the roles in the data, or give a chat template that accepts them",
            docs="docs/your-data.md#chat-template",
        ) from error
