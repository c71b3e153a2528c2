"""Scores of preference pairs: the log-probabilities that a plain pass gives, and what is made of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, TEMPLATE, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.evaluation.preferences import PairScore, score_pairs, summarise_pairs
from equipoise.models.loading import Loaded
from equipoise.records import Message, PreferencePair


def pairs(count=9):
    return [
        PreferencePair(
            id=f"p{i}",
            prompt=[Message(role="user", content=f"the call for {i}" + " numpy" * (i % 4))],
            chosen=f"pandas.concat{i * 7}",
            rejected=f"stack {i}" + " numpy" * (i % 5),
        )
        for i in range(count)
    ]


def loaded(architecture="llama", **options):
    return Loaded(tiny_model(architecture), tiny_tokenizer(**options), "tiny")


def naive(model, tokenizer, pair, answer):
    """One sequence, no padding, the model's logits, the tokenizer's template: summed log-probability, tokens."""
    turns = [{"role": "user", "content": pair.prompt[0].content}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([tokenizer(prompt + answer + "<|im_end|>")["input_ids"]])
    with torch.no_grad():
        logp = model(ids).logits[0, :-1].double().log_softmax(-1)
    chosen = logp.gather(1, ids[0, 1:, None])[start - 1 :, 0]
    return float(chosen.sum()), len(chosen)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_score_is_what_a_plain_pass_over_one_sequence_gives(architecture):
    start = loaded(architecture)
    scores = score_pairs(start, pairs())
    assert [score.id for score in scores] == [pair.id for pair in pairs()]
    for score, pair in zip(scores, pairs()):
        for side in ("chosen", "rejected"):
            logprob, tokens = naive(start.model, start.tokenizer, pair, getattr(pair, side))
            assert getattr(score, f"{side}_logprob") == pytest.approx(logprob, rel=1e-5, abs=1e-4)
            assert getattr(score, f"{side}_tokens") == tokens


@pytest.mark.parametrize("batch_tokens", [1, 60, 100_000])
def test_batches_and_order_change_nothing(batch_tokens):
    start = loaded()
    apart = {score.id: score for score in score_pairs(start, pairs())}
    for score in score_pairs(start, pairs()[::-1], batch_tokens=batch_tokens):
        assert score.chosen_logprob == pytest.approx(apart[score.id].chosen_logprob, rel=1e-5)
        assert score.rejected_logprob == pytest.approx(apart[score.id].rejected_logprob, rel=1e-5)


def test_a_model_relative_to_itself_has_no_reward():
    start = loaded()
    reference = score_pairs(start, pairs())
    found = summarise_pairs(score_pairs(start, pairs(), reference=reference[::-1]))
    assert found["reward_chosen"] == found["reward_rejected"] == found["reward_margin"] == 0
    assert found["reward_accuracy"] == 0.5


def test_the_summary_by_hand():
    scores = [
        PairScore("a", -2.0, -6.0, 1, 6, -4.0, -4.0),  # right by sum, wrong by token
        PairScore("b", -3.0, -3.0, 3, 1, -3.0, -5.0),  # a tie by sum, right by token
        PairScore("c", -8.0, -4.0, 4, 2, -9.0, -4.0),  # wrong by sum, a tie by token
    ]
    found = summarise_pairs(scores, beta=0.5)
    assert found["pairs"] == 3 and found["accuracy"] == 0.5 and found["accuracy_per_token"] == 0.5
    assert found["ties"] == pytest.approx(1 / 3)
    assert found["margin"] == 0 and found["margin_per_token"] == pytest.approx((-1 + 2 + 0) / 3)
    assert found["chosen_tokens"] == pytest.approx(8 / 3) and found["rejected_tokens"] == 3
    assert found["reward_chosen"] == pytest.approx(0.5 * (2 + 0 + 1) / 3)
    assert found["reward_rejected"] == pytest.approx(0.5 * (-2 + 2 + 0) / 3)
    assert found["reward_margin"] == pytest.approx(0.5 * (4 - 2 + 1) / 3)
    assert found["reward_accuracy"] == pytest.approx(2 / 3)
    plain = summarise_pairs([PairScore("a", -2.0, -6.0, 1, 6)])
    assert plain["accuracy"] == 1 and not any(name.startswith("reward") for name in plain)


logprobs = st.floats(-50, -0.01).map(lambda x: round(x, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(logprobs, logprobs, st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20))
def test_swapping_the_sides_mirrors_the_summary(rows):
    one = summarise_pairs([PairScore(str(i), *row) for i, row in enumerate(rows)])
    other = summarise_pairs([PairScore(str(i), b, a, m, n) for i, (a, b, n, m) in enumerate(rows)])
    for name in ("accuracy", "accuracy_per_token"):
        assert one[name] + other[name] == pytest.approx(1) and 0 <= one[name] <= 1
    for name in ("margin", "margin_per_token"):
        assert one[name] == pytest.approx(-other[name])
    assert one["ties"] == other["ties"]


def test_a_pair_that_does_not_fit_has_no_score_and_is_named(capsys):
    long = PreferencePair(
        id="long", prompt=[Message(role="user", content="numpy")], chosen="pandas", rejected="numpy " * 90
    )
    scores = score_pairs(loaded(), [long, *pairs()], max_length=64)
    assert [score.id for score in scores] == [pair.id for pair in pairs()]
    assert "1 pairs not scored, first: long" in capsys.readouterr().err


def test_what_cannot_be_scored_is_refused():
    start = loaded()
    with pytest.raises(UserError, match="9 of 9 pairs"):
        score_pairs(start, pairs(), max_length=4)
    with pytest.raises(UserError, match="no score for 1 of 9"):
        score_pairs(start, pairs(), reference=score_pairs(start, pairs(8)))
    with pytest.raises(UserError, match="no pair to summarise"):
        summarise_pairs([])
    with pytest.raises(UserError, match="1 of 2 pairs have no reference"):
        summarise_pairs([PairScore("a", -1, -2, 1, 1, -1, -1), PairScore("b", -1, -2, 1, 1)])
    with pytest.raises(UserError, match="no chat template"):
        score_pairs(loaded(chat_template=None), pairs())


def test_a_control_token_in_a_pair_is_scored_as_text():
    (plain,) = score_pairs(loaded(), [pairs(1)[0].model_copy(update={"chosen": "pandas<|im_end|>"})])
    (bare,) = score_pairs(loaded(), [pairs(1)[0].model_copy(update={"chosen": "pandas"})])
    assert plain.chosen_tokens > bare.chosen_tokens + 1


def test_spaces_that_the_template_cuts_make_no_pair():
    start = loaded(chat_template=TEMPLATE.replace("message['content']", "message['content'] | trim"))
    same = pairs(1)[0].model_copy(update={"id": "same", "chosen": "pandas", "rejected": "pandas "})
    assert [score.id for score in score_pairs(start, [same, *pairs(2)])] == ["p0", "p1"]


def test_numbers_that_are_not_finite_are_refused():
    start = loaded()
    with torch.no_grad():
        start.model.model.embed_tokens.weight[start.tokenizer(".")["input_ids"]] = math.nan
    with pytest.raises(UserError, match="p0 a log-probability that is not a finite number"):
        score_pairs(start, pairs())
