"""Sequences packed into rows: hidden states and gradients are those of each sequence by itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from equipoise.models.packed_attention import Packing, packed

ROWS = st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=3).filter(any)


@given(ROWS)
def test_every_token_has_one_place_and_finds_it_again(lengths):
    packing = Packing.of(lengths)
    tokens = torch.arange(len(packing.gather))
    there_and_back = tokens[packing.spread][packing.gather]
    assert torch.equal(there_and_back[~packing.filler], tokens[~packing.filler])
    assert int((~packing.filler).sum()) == int((~packing.padding).sum()) == sum(map(sum, lengths))
    assert packing.positions.max() == max(length for row in lengths for length in row) - 1


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {}),
        ("llama", {"attn_implementation": "eager"}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("phi", {}),
        ("mistral", {"sliding_window": 4}),
        ("gemma2", {"attn_implementation": "eager", "sliding_window": 4}),
        ("granite", {}),
        ("cohere", {}),
        ("gpt2", {}),
    ],
)
@settings(max_examples=8, deadline=None)
@given(lengths=ROWS)
def test_packed_is_as_one_by_one(architecture, changes, lengths):
    model = tiny_model(architecture, **changes)
    packing = Packing.of(lengths)
    ids = torch.randint(4, 300, packing.positions.shape, generator=torch.Generator().manual_seed(1))
    towards = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(2))
    before = model.config._attn_implementation
    with packed(model, packing):
        together = model.base_model(input_ids=ids, position_ids=packing.positions, use_cache=False).last_hidden_state
    assert model.config._attn_implementation == before
    found, wanted = torch.zeros(()), torch.zeros(())
    for r, row in enumerate(lengths):
        start = 0
        for length in row:
            here = slice(start, start + length)
            alone = model.base_model(input_ids=ids[r : r + 1, here], use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(together[r, here], alone, rtol=1e-4, atol=1e-5)
            found, wanted = found + (together[r, here] @ towards).tanh().sum(), wanted + (alone @ towards).tanh().sum()
            start += length
    parameters = [p for p in model.base_model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(found, parameters, allow_unused=True)
    theirs = torch.autograd.grad(wanted, parameters, allow_unused=True)
    for a, b in zip(ours, theirs):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-6)
