"""Batched greedy generation against transformers' own, one prompt at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

from equipoise.models.generation import generate_greedy, stop_ids

TOKENIZER = tiny_tokenizer()


def one_at_a_time(model, prompts, new):
    out = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        full = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, pad_token_id=0
        )
        out.append(TOKENIZER.decode(full[0, len(prompt) :], skip_special_tokens=True))
    return out


def prompts(count, seed=0, longest=20):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=draw).tolist()
    return [torch.randint(4, len(TOKENIZER), (length,), generator=draw).tolist() for length in lengths]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_to_generate_one_at_a_time(architecture):
    model = tiny_model(architecture, seed=2)
    asked = prompts(9)
    expected = one_at_a_time(model, asked, 12)
    assert generate_greedy(model, TOKENIZER, asked, max_new_tokens=12) == expected


def stopping_model():
    """A model that ends many of its answers early: the head leans to the stop token."""
    model = tiny_model(seed=3)
    with torch.no_grad():
        model.lm_head.weight[2] *= 2.5
    return model


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12), batch_tokens=st.sampled_from([1, 60, 10**4]))
def test_rows_that_finish_early_leave_without_disturbing_the_others(seed, count, batch_tokens):
    model, asked = stopping_model(), prompts(count, seed)
    expected = one_at_a_time(model, asked, 10)
    assert generate_greedy(model, TOKENIZER, asked, max_new_tokens=10, batch_tokens=batch_tokens) == expected


def test_answers_of_different_lengths_are_met_here():
    answers = generate_greedy(stopping_model(), TOKENIZER, prompts(30), max_new_tokens=10)
    lengths = {len(TOKENIZER(answer)["input_ids"]) for answer in answers}
    assert len(lengths) > 3


def test_no_prompts_no_answers_and_the_mode_stays():
    model = tiny_model()
    assert generate_greedy(model, TOKENIZER, []) == []
    model.train()
    generate_greedy(model, TOKENIZER, prompts(2), max_new_tokens=2)
    assert model.training


def test_stops_at_the_end_of_turn_that_only_the_template_names():
    tokenizer, model = tiny_tokenizer(eos_token="<|endoftext|>"), tiny_model()
    model.generation_config.eos_token_id = 3
    assert stop_ids(model, tokenizer) == {2, 3}


class LinearInputs(TorchDispatchMode):
    """Record whether the input of each linear layer is contiguous, by the number of its outputs."""

    def __init__(self):
        super().__init__()
        self.contiguous = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.linear.default:
            self.contiguous.append((args[1].shape[0], args[0].is_contiguous()))
        return func(*args, **(kwargs or {}))


def test_the_head_gets_contiguous_rows():
    """Otherwise PyTorch copies a frozen head once for each row."""
    model = tiny_model("llama", seed=2)
    with LinearInputs() as seen:
        generate_greedy(model, TOKENIZER, prompts(9), max_new_tokens=3)
    assert {contiguous for outputs, contiguous in seen.contiguous if outputs == model.config.vocab_size} == {True}
