"""An answer as it is written: the same tokens as elsewhere, whole characters, cut exactly at a stop string."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.models.generation import generate
from equipoise.models.sampling import draw
from equipoise.models.streaming import Unfolding, stream

TOKENIZER = tiny_tokenizer()
PROMPT = TOKENIZER("the call for 7")["input_ids"]


def decoded(ids):
    return TOKENIZER.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("architecture", ["llama", "phi", "gemma2", "gpt2"])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (0.2, 0.9)])
def test_the_tokens_are_those_that_sampling_draws(architecture, temperature, top_p):
    model = tiny_model(architecture, seed=2)
    how = {"temperature": temperature, "top_p": top_p, "max_new_tokens": 24}
    for seed in range(5):
        ((drawn,),) = draw(model, TOKENIZER, [PROMPT], [[seed]], **how)
        pieces = list(stream(model, TOKENIZER, PROMPT, seed=seed, **how))
        assert "".join(piece.text for piece in pieces) == decoded(drawn.ids)
        assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish == ("length" if drawn.stop is None else "stop")


def test_temperature_0_is_greedy_and_probabilities_are_the_models_own():
    model = tiny_model(seed=3)
    (greedy,) = generate(model, TOKENIZER, [PROMPT], max_new_tokens=20)
    pieces = list(stream(model, TOKENIZER, PROMPT, temperature=0, max_new_tokens=20))
    assert "".join(piece.text for piece in pieces) == decoded(greedy.ids)
    ids = torch.tensor([PROMPT + greedy.ids])
    with torch.no_grad():
        p = model(ids).logits[0, len(PROMPT) - 1 : -1].softmax(-1).gather(1, ids[0, len(PROMPT) :, None])
    assert min(piece.probability for piece in pieces) == pytest.approx(float(p.min()), rel=1e-4)


def test_scores_that_are_not_numbers_are_an_error():
    model = tiny_model()
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        list(stream(model, TOKENIZER, PROMPT))


def test_an_interrupted_answer_shows_all_that_was_written():
    model, asked = tiny_model(seed=2), []
    whole = list(stream(model, TOKENIZER, PROMPT, seed=1, temperature=1, top_p=1, max_new_tokens=12))

    def after_six() -> bool:
        asked.append(True)
        return len(asked) == 6

    stop = [decoded([i]) + "never" for i in range(4, len(TOKENIZER))]  # so that something is held back
    options = {"seed": 1, "temperature": 1, "top_p": 1, "max_new_tokens": 12, "stop": stop}
    part = list(stream(model, TOKENIZER, PROMPT, interrupted=after_six, **options))
    assert part[-1].finish == "interrupted"
    text = "".join(piece.text for piece in part)
    assert text and "".join(piece.text for piece in whole).startswith(text.rstrip("\ufffd"))


def tokens(text: str, whole: list[bool]) -> list[int]:
    """Token ids of `text`: of each word, in turn, as the tokenizer has it (if `whole`), or byte by byte."""
    backend, out = TOKENIZER.backend_tokenizer, []
    for at, (word, _) in enumerate(backend.pre_tokenizer.pre_tokenize_str(text)):
        if whole and whole[at % len(whole)]:
            out += [token.id for token in backend.model.tokenize(word)]
        else:
            out += [backend.token_to_id(byte) for byte in word]
    return out


def unfolded(ids, stop=()):
    fold = Unfolding(TOKENIZER, stop)
    pieces = []
    for token in ids:
        pieces += fold.feed(token, 0.5)
        if fold.stopped:
            break
    return [*pieces, *fold.rest()], fold


def cut_at(text: str, stop: list[str]) -> str:
    """The oracle: letter by letter, until the text so far ends in a stop string."""
    for end in range(len(text) + 1):
        if ends := [s for s in stop if s and text[:end].endswith(s)]:
            return text[: end - len(max(ends, key=len))]
    return text


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=30), st.lists(st.integers(0, 200), max_size=8), st.lists(st.text("ab\n", max_size=3), max_size=3)
)
@example("aab", [], ["ab"])
@example("abc", [1, 2], ["abc", "b"])
@example("x€y", [2], ["€"])
def test_a_stop_string_cuts_exactly_wherever_the_tokens_part_it(text, cuts, stop):
    ids = tokens(text, cuts)
    pieces, fold = unfolded(ids, stop)
    assert "".join(piece.text for piece in pieces) == cut_at(text, stop)
    assert fold.stopped == (cut_at(text, stop) != text)


@settings(max_examples=100, deadline=None)
@given(st.text("ab\n", max_size=20), st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_strings_that_overlap(text, stop):
    pieces, _ = unfolded(tokens(text, []), stop)
    assert "".join(piece.text for piece in pieces) == cut_at(text, stop)


def test_half_a_character_is_never_shown():
    text = "a\N{GRINNING FACE}é漢字"
    fold, shown = Unfolding(TOKENIZER), ""
    for token in tokens(text, []):
        shown += "".join(piece.text for piece in fold.feed(token, 1.0))
        assert text.startswith(shown)
    assert shown == text


def test_bytes_that_never_become_a_character_are_shown_as_such_at_the_end():
    ids = tokens("a€", [])[:-1]
    pieces, _ = unfolded(ids)
    assert "".join(piece.text for piece in pieces) == "a\ufffd"


def test_a_character_of_several_tokens_has_the_probability_of_the_least_likely():
    fold, pieces = Unfolding(TOKENIZER), []
    for token, p in zip(tokens("€a", []), (0.9, 0.2, 0.8, 0.7)):
        pieces += fold.feed(token, p)
    assert [(piece.text, piece.probability) for piece in pieces] == [("€", 0.2), ("a", 0.7)]
