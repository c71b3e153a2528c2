"""Generation that ends by what the answer says, against the same answers cut afterwards."""

import pytest
from tiny_adapters import tiny_stack
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.models.generation import generate
from equipoise.models.stack_generation import generate_stacked
from equipoise.models.text_stop import GrowingText

TOKENIZER = tiny_tokenizer()
PROMPTS = [[5 + i, 40 + 3 * i, 90] * (1 + i % 3) for i in range(8)]


def decoded(ids):
    return TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def first_end(ids, says):
    """How many tokens an answer has when `says` is first true of the text of all its whole characters."""
    for count in range(1, len(ids) + 1):
        text = decoded(ids[:count])
        if not text.endswith("\ufffd") and says(text):
            return count
    return None


def lengths(number, text):
    return len(text) >= 4 + number


@pytest.mark.parametrize("batch_tokens", [1, 10**4])
def test_an_answer_is_the_whole_one_up_to_where_its_text_ends_it(batch_tokens):
    model = tiny_model(seed=2)
    whole = generate(model, TOKENIZER, PROMPTS, max_new_tokens=16)
    asked = []

    def says(number, text):
        asked.append((number, text))
        return lengths(number, text)

    ended = generate(model, TOKENIZER, PROMPTS, max_new_tokens=16, batch_tokens=batch_tokens, stop_when=says)
    for number, (before, answer) in enumerate(zip(whole, ended)):
        count = first_end(before.ids, lambda text, number=number: lengths(number, text))
        assert answer.by_text == (count is not None)
        assert answer.ids == before.ids[:count]
        assert answer.cut == (count is None and before.stop is None)
    assert any(answer.by_text for answer in ended)
    assert {number for number, _ in asked} == set(range(len(PROMPTS)))


def test_without_a_text_to_stop_at_nothing_changes():
    model = tiny_model(seed=2)
    whole = generate(model, TOKENIZER, PROMPTS, max_new_tokens=8)
    assert generate(model, TOKENIZER, PROMPTS, max_new_tokens=8, stop_when=lambda number, text: False) == whole


def test_runs_of_a_stack_end_each_by_its_own_text():
    stack = tiny_stack(3)
    together = generate_stacked(stack, TOKENIZER, PROMPTS, max_new_tokens=12, stop_when=lengths)
    for run in range(3):
        alone = generate(stack.model_of(run), TOKENIZER, PROMPTS, max_new_tokens=12, stop_when=lengths)
        assert [a.ids for a in together[run]] == [a.ids for a in alone]
        assert [a.by_text for a in together[run]] == [a.by_text for a in alone]
    assert len({tuple(a.ids) for mine in together for a in mine}) > len(PROMPTS)


@pytest.mark.parametrize("text", ["naïve café", "日本語 🙂 ok", "plain text\n    with lines\n"])
def test_text_grows_by_whole_characters(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    growing = GrowingText(TOKENIZER)
    seen = [growing.update(ids[: count + 1]) for count in range(len(ids))]
    assert seen[-1] == text
    assert all(text.startswith(part) for part in seen)


def test_half_a_character_at_the_end_is_left_out():
    ids = TOKENIZER("a🙂", add_special_tokens=False)["input_ids"]
    growing = GrowingText(TOKENIZER)
    for count in range(1, len(ids)):
        assert growing.update(ids[:count]) == "a"
    assert growing.update(ids) == "a🙂"
