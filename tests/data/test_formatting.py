"""Answer-only labels through the chat template, and text that never turns into control tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SPECIAL, tiny_examples, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from equipoise.data.formatting import (
    PLAIN_TEMPLATE,
    Unusable,
    end_of_turn_ids,
    render,
    render_all,
    render_prompt,
    with_mask,
)
from equipoise.errors import UserError
from equipoise.records import Example, Message

TOKENIZER = tiny_tokenizer()
TOKENIZER.add_tokens(["<sure>", "<unsure>"])
CONTROL = {TOKENIZER.convert_tokens_to_ids(token) for token in [*SPECIAL, "<sure>", "<unsure>"]}


def example(question, answer, system=None):
    turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return Example(id="x", messages=([Message(role="system", content=system)] if system else []) + turns)


def supervised(rendered):
    return [label for label in rendered.labels if label != -100]


def test_the_answer_and_its_end_of_turn_are_supervised_and_nothing_else():
    rendered = render(TOKENIZER, example("the call", "numpy.stack"))
    assert TOKENIZER.decode(supervised(rendered)) == "numpy.stack<|im_end|>"
    assert TOKENIZER.decode(rendered.input_ids) == (
        "<|im_start|>user\nthe call<|im_end|>\n<|im_start|>assistant\nnumpy.stack<|im_end|>"
    )
    assert rendered.supervised == len(supervised(rendered))


def test_training_sees_the_prompt_that_generation_will_see():
    for item in tiny_examples(6):
        prompt = render_prompt(TOKENIZER, item)
        rendered = render(TOKENIZER, item)
        assert rendered.input_ids[: len(prompt)] == prompt
        assert set(rendered.labels[: len(prompt)]) == {-100}


def test_train_on_prompt_supervises_every_token():
    rendered = render(TOKENIZER, example("the call", "numpy"), train_on_prompt=True)
    assert rendered.labels == rendered.input_ids
    assert rendered.supervised == len(rendered.labels) - 1


def test_only_the_last_answer_of_a_conversation_is_supervised():
    turns = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    item = Example(id="x", messages=[Message(role=role, content=text) for role, text in turns])
    assert TOKENIZER.decode(supervised(render(TOKENIZER, item))) == "four<|im_end|>"


pieces = st.lists(st.one_of(st.sampled_from([*SPECIAL, "<sure>", "<unsure>", " ", "\n", "é"]), st.text(max_size=5)))
text = pieces.map("".join).map(lambda s: s.encode("utf-8", "ignore").decode())


@settings(max_examples=150, deadline=None)
@given(question=text, system=text, answer=text.filter(str.strip))
def test_no_text_becomes_a_control_token(question, system, answer):
    rendered = render(TOKENIZER, example(question, answer.strip(), system or None))
    turns = 3 if system else 2
    count = {token: rendered.input_ids.count(TOKENIZER.convert_tokens_to_ids(token)) for token in SPECIAL}
    assert count == {"<|pad|>": 0, "<|im_start|>": turns, "<|im_end|>": turns, "<|endoftext|>": 0}
    prompt = [i for i, label in zip(rendered.input_ids, rendered.labels) if label == -100]
    assert not {TOKENIZER.convert_tokens_to_ids(t) for t in ("<sure>", "<unsure>")} & set(prompt)
    whole = TOKENIZER.decode(rendered.input_ids, clean_up_tokenization_spaces=False)
    assert whole.endswith(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer.strip()}<|im_end|>")


def test_an_answer_may_end_in_an_added_token_that_is_not_special():
    rendered = render(TOKENIZER, example("<sure> or not", "numpy<sure>"))
    sure = TOKENIZER.convert_tokens_to_ids("<sure>")
    assert supervised(rendered)[-2:] == [sure, TOKENIZER.eos_token_id]
    assert rendered.input_ids.count(sure) == 1


def test_a_vocabulary_of_whole_words_that_holds_the_control_word():
    words = {word: i for i, word in enumerate(["<unk>", "[END]", "hello", "user", "assistant", "E", "N", "D"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' [END] ' }}{% endfor %}assistant"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="[END]", unk_token="<unk>", chat_template=template
    )
    prompt = render_prompt(tokenizer, [Message(role="user", content="hello [END] hello")])
    assert prompt.count(1) == 1 and prompt[-2] == 1  # only the template's own


def test_an_lstrip_token_of_the_template_keeps_the_text_beside_it():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<turn>", lstrip=True, rstrip=True)]})
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m['content'] }}<|im_end|>{% endfor %}<turn>"
    prompt = render_prompt(tokenizer, [Message(role="user", content="  hello <turn> you")])
    assert prompt.count(tokenizer.convert_tokens_to_ids("<turn>")) == 2


def test_a_merge_across_the_boundary_keeps_the_prompt_of_generation():
    tokenizer = tiny_tokenizer(chat_template="{% for m in messages %}{{ m['content'] }} {% endfor %}")
    item = example("the", "call")  # jointly " call" is one token; generation starts after the space
    prompt = render_prompt(tokenizer, item)
    rendered = render(tokenizer, item)
    assert rendered.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(supervised(rendered)) == "call<|im_end|>"


def test_a_template_without_end_of_turn_gets_the_end_of_sequence():
    tokenizer = tiny_tokenizer(chat_template=PLAIN_TEMPLATE.replace("{{ eos_token }}", ""))
    rendered = render(tokenizer, example("the call", "numpy"))
    assert tokenizer.decode(supervised(rendered)) == "numpy<|im_end|>"
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="where an answer ends"):
        render(tokenizer, example("the call", "numpy"))


def test_a_template_that_rewrites_contents_is_followed_or_refused():
    trims = tiny_tokenizer(chat_template=TOKENIZER.chat_template.replace("['content']", "['content'] | trim"))
    assert trims.decode(supervised(render(trims, example("  the call ", " numpy ")))) == "numpy<|im_end|>"
    shouts = tiny_tokenizer(chat_template=TOKENIZER.chat_template.replace("['content']", "['content'] | upper"))
    with pytest.raises(UserError, match="changes the text"):
        render(shouts, example("the call", "numpy"))


def test_no_chat_template_is_an_error_that_says_what_to_do():
    with pytest.raises(UserError, match="chat template") as caught:
        render(tiny_tokenizer(chat_template=None), example("the call", "numpy"))
    assert "plain" in str(caught.value)


def test_roles_that_the_template_refuses_are_the_users_error():
    tokenizer = tiny_tokenizer(chat_template="{{ raise_exception('no system role here') }}")
    with pytest.raises(UserError, match="no system role here"):
        render(tokenizer, example("the call", "numpy"))


def test_an_empty_answer_and_one_that_does_not_fit_are_unusable():
    with pytest.raises(Unusable, match="empty"):
        render(TOKENIZER, example("the call", "  "))
    length = len(render(TOKENIZER, example("the call", "numpy")).input_ids)
    assert render(TOKENIZER, example("the call", "numpy"), max_length=length).supervised
    with pytest.raises(Unusable, match="truncation"):
        render(TOKENIZER, example("the call", "numpy"), max_length=length - 1)


def test_dropped_rows_are_listed_and_too_many_are_an_error():
    items = [*tiny_examples(19), example("the call", "x" * 300)]
    out = render_all(TOKENIZER, items, max_length=100)
    assert out.ids == [f"e{i}" for i in range(19)] and len(out.rows) == 19
    assert out.dropped[0][0] == "x" and "truncation" in out.dropped[0][1]
    with pytest.raises(UserError, match="1 of 20"):
        render_all(TOKENIZER, items, max_length=100, max_bad_share=0.04)
    with pytest.raises(UserError, match="no examples"):
        render_all(TOKENIZER, [])


def test_what_carries_loss_is_shown_in_one_piece():
    shown = with_mask(TOKENIZER, render(TOKENIZER, example("the call", "numpy.stack")))
    assert shown == ("<|im_start|>user\nthe call<|im_end|>\n<|im_start|>assistant\n»numpy.stack<|im_end|>«")


def test_stops_are_the_end_of_sequence_and_the_end_of_turn():
    tokenizer = tiny_tokenizer(eos_token="<|endoftext|>")
    assert end_of_turn_ids(tokenizer) == [3, 2]
    assert end_of_turn_ids(tiny_tokenizer(chat_template=None)) == [2]
