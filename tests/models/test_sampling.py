"""Sampled answers: each hangs on its own seed alone, its log-probabilities are the model's, its frequencies too."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.models.generation import generate
from equipoise.models.sampling import draw

TOKENIZER = tiny_tokenizer()


def prompts(count, seed=0, longest=20):
    draws = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=draws).tolist()
    return [torch.randint(4, len(TOKENIZER), (length,), generator=draws).tolist() for length in lengths]


def stopping_model(architecture="llama"):
    """A model that ends answers early and at different lengths."""
    model = tiny_model(architecture, seed=3)
    with torch.no_grad():
        model.get_output_embeddings().weight[2] *= 2.5
    return model


def drawn(model, asked, seeds, **options):
    found = [one for some in draw(model, TOKENIZER, asked, seeds, **options) for one in some]
    keys = [(one.prompt, one.sample) for one in found]
    assert sorted(keys) == [(p, s) for p, of in enumerate(seeds) for s in range(len(of))]
    return {(one.prompt, one.sample): one for one in found}


def texts(model, asked, seeds, **options):
    return {key: (one.ids, one.stop) for key, one in drawn(model, asked, seeds, **options).items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_row_at_a_time_equals_batched(architecture):
    model, asked = stopping_model(architecture), prompts(6)
    seeds = [[100 * p + s for s in range(4)] for p in range(6)]
    together = texts(model, asked, seeds, max_new_tokens=12)
    alone = {
        (p, s): texts(model, [asked[p]], [[seed]], max_new_tokens=12)[0, 0]
        for p, of in enumerate(seeds)
        for s, seed in enumerate(of)
    }
    assert together == alone
    assert architecture != "llama" or len({len(ids) for ids, _ in together.values()}) >= 3


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 9), min_size=1, max_size=8),
       batch_tokens=st.sampled_from([1, 100, 10**4]), top_p=st.sampled_from([0.7, 1.0]))  # fmt: skip
def test_a_row_does_not_see_the_batch(seed, counts, batch_tokens, top_p):
    model, asked = stopping_model(), prompts(len(counts), seed)
    seeds = [[seed + 31 * p + s for s in range(count)] for p, count in enumerate(counts)]
    options = {"max_new_tokens": 8, "temperature": 0.9, "top_p": top_p}
    found = texts(model, asked, seeds, batch_tokens=batch_tokens, **options)
    assert found == texts(model, asked, seeds, batch_tokens=500, **options)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_log_probabilities_are_those_of_a_full_forward_pass_at_temperature_1(temperature):
    model, asked = stopping_model(), prompts(5)
    found = drawn(model, asked, [[1, 2, 3]] * 5, max_new_tokens=10, temperature=temperature, top_p=0.9)
    for (prompt, _), one in found.items():
        said = one.ids + ([] if one.stop is None else [one.stop])
        with torch.no_grad():
            logits = model(torch.tensor([asked[prompt] + said])).logits[0, len(asked[prompt]) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(said)), torch.tensor(said)]
        np.testing.assert_allclose(one.logprobs, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_first_tokens_come_as_often_as_the_distribution_says(temperature, top_p):
    model, asked = tiny_model(seed=1), prompts(1)
    count = 4000
    found = drawn(model, asked, [list(range(count))], max_new_tokens=1, temperature=temperature, top_p=top_p,
                  batch_tokens=10**6)  # fmt: skip
    seen = Counter(one.stop if one.stop is not None else one.ids[0] for one in found.values())
    with torch.no_grad():
        p = (model(torch.tensor(asked)).logits[0, -1].double() / temperature).softmax(-1).numpy()
    if top_p < 1:  # the smallest set of likeliest tokens that holds top_p, by a plain loop
        kept, total = [], 0.0
        for token in np.argsort(-p, kind="stable"):
            kept.append(token)
            total += p[token]
            if total >= top_p:
                break
        p = np.where(np.isin(np.arange(len(p)), kept), p, 0) / total
        assert set(seen) <= set(kept)
    often = p * count >= 5
    observed = [seen[token] for token in np.flatnonzero(often)]
    rest = count - sum(observed)
    expected = [*p[often] * count, p[~often].sum() * count]
    if expected[-1] < 1e-6:
        assert rest == 0
        expected = expected[:-1]
    else:
        observed = [*observed, rest]
    assert chisquare(observed, np.array(expected) * (sum(observed) / sum(expected))).pvalue > 1e-3


def test_temperature_0_is_greedy():
    model, asked = stopping_model(), prompts(7)
    greedy = generate(model, TOKENIZER, asked, max_new_tokens=10)
    found = drawn(model, asked, [[5, 6]] * 7, max_new_tokens=10, temperature=0)
    for (prompt, _), one in found.items():
        assert (one.ids, one.stop) == (greedy[prompt].ids, greedy[prompt].stop)
        assert sum(one.logprobs) == pytest.approx(greedy[prompt].logprob, abs=1e-4)


def test_a_prompt_is_read_once_for_its_samples():
    model, read = stopping_model(), []
    model.register_forward_pre_hook(lambda _m, _a, kw: read.append(tuple(kw["input_ids"].shape)), with_kwargs=True)
    asked = [[7] * 11, [8] * 5]
    drawn(model, asked, [range(8), range(3)], max_new_tokens=6)
    assert read[0] == (2, 11)
    assert read[1][1] == 1 and read[1][0] <= 11
    assert all(width == 1 for _, width in read[1:])
    assert [rows for rows, _ in read[1:]] == sorted((rows for rows, _ in read[1:]), reverse=True)


def test_answers_are_handed_out_as_they_end_and_the_mode_comes_back():
    model = stopping_model().train()
    some = list(draw(model, TOKENIZER, prompts(3), [range(20)] * 3, max_new_tokens=30))
    lengths = [len(one.logprobs) for batch in some for one in batch]
    assert len(some) > 3 and lengths == sorted(lengths)
    assert model.training
    assert not torch.is_inference_mode_enabled()


def test_the_consumer_is_not_put_into_inference_mode():
    for _ in draw(stopping_model(), TOKENIZER, prompts(3), [[1, 2]] * 3, max_new_tokens=4):
        assert torch.ones(1, requires_grad=True).mul(2).requires_grad


def test_scores_that_are_no_numbers_are_told():
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        list(draw(model, TOKENIZER, [[5]], [[1]], max_new_tokens=2))
