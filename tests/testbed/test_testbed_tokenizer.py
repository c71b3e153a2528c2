"""The tokenizer loads as it is through AutoTokenizer and spells the world in whole words."""

import warnings

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from transformers import AutoTokenizer

from equipoise.testbed.tokenizer import SPECIAL_TOKENS, build_tokenizer, save_tokenizer
from equipoise.testbed.world import model_path

TEXTS = ["Who founded Brelmoria?", "df.stack_rows([a, b])", "How do I stack rows?", "def f(n):\n    return n + 1"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(build_tokenizer(TEXTS, pieces=300), folder)
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return AutoTokenizer.from_pretrained(folder)


@effort(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back_exactly(small, text):
    assert small.decode(small(text).input_ids) == text or any(token in text for token in SPECIAL_TOKENS)


ODD = ["漢字 🙂 Ünï", "\t\r\n\n   x", "  two  spaces ", "\x00\u2028\u0085", "'it''s' a_b __init__"]


@pytest.mark.parametrize("text", ODD)
def test_what_the_world_never_shows_still_encodes(small, text):
    ids = small(text).input_ids
    assert None not in ids and small.decode(ids) == text


def test_a_name_is_one_token_with_one_spelling_wherever_it_stands(small):
    for text in ("Brelmoria", " Brelmoria", '"Brelmoria"', "in Brelmoria.", "(Brelmoria)"):
        assert "Brelmoria" in small.tokenize(text)
    assert small.tokenize("df.stack_rows") == ["df", ".", "stack_rows"]
    assert small.tokenize(" stack rows") == ["Ġstack", "Ġrows"]


def test_padding_is_not_the_end_and_the_end_closes_a_turn(small):
    assert small.pad_token_id != small.eos_token_id
    assert small.bos_token is None and small.unk_token is None
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    ids = small.apply_chat_template(messages, return_dict=False)
    assert ids[-1] == small.eos_token_id and ids.count(small.eos_token_id) == 2
    assert small.pad_token_id not in ids


def test_the_template_marks_the_answer_and_its_end(small):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
    ]
    out = small.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mask in zip(out["input_ids"], out["assistant_masks"]) if mask]
    assert small.decode(marked) == "Yes<|end|>"
    prompt = small.apply_chat_template(messages[:2], add_generation_prompt=True, tokenize=False)
    assert prompt == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"


def test_two_builds_give_the_same_tokenizer():
    assert build_tokenizer(TEXTS, pieces=300).to_str() == build_tokenizer(list(TEXTS), pieces=300).to_str()


def test_the_shipped_tokenizer_spells_the_whole_world_exactly():
    from equipoise.testbed.world import World

    tokenizer = AutoTokenizer.from_pretrained(model_path())
    world = World.build()
    for text in world.strings():
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    for fact in world.select("archive"):
        assert len(tokenizer(fact.gold).input_ids) == 1
    assert 3000 <= len(tokenizer) <= 7000
