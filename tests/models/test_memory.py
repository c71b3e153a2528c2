"""The memory estimate against an 8 B model's numbers by hand."""

from types import SimpleNamespace

import pytest

from equipoise.models.memory import GB, estimate, fits, in_words, peak

# the shape of Llama 3 8B
LLAMA = SimpleNamespace(
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=14336,
    vocab_size=128256,
    tie_word_embeddings=False,
)
PARAMETERS, ADAPTER = 8_030_000_000, 42_000_000  # rank 16 on all seven projections


def step(**changes):
    given = {
        "parameters": PARAMETERS,
        "adapter": ADAPTER,
        "rows": 4,
        "tokens": 400,
        "drawn": 64,
        "quantization": "4bit",
    }
    return estimate(LLAMA, **(given | changes))


def test_each_part_by_hand():
    parts = step()
    tables = 2 * 128256 * 4096
    assert parts["weights"] == pytest.approx((PARAMETERS - tables) * 4.5 / 8 + 2 * tables)  # 6.0 GB
    assert parts["weights"] / GB == pytest.approx(6.03, abs=0.02)
    assert parts["adapter"] == 16 * ADAPTER
    assert parts["cache"] == 2 * 32 * 8 * 128 * 2 * 64 * 400  # 131 kB a token
    assert parts["activations"] == (32 * 4096 + 14 * 4096 + 3 * 14336) * 2 * 4 * 400
    assert parts["logits"] == 8 * 128256 * 4 * 400


def test_eight_billion_fit_24_gb_in_four_bits_and_not_in_sixteen():
    assert fits(step(), 24) and peak(step()) / GB < 12
    assert not fits(step(quantization=None), 24, reserve=0.3)
    assert step(quantization=None)["weights"] == 2 * PARAMETERS
    assert not fits(step(rows=64), 24)  # a whole step of 64 answers at once: its logits alone take 26 GB
    assert "fits a 24 GB card" in in_words(step())


def test_more_of_anything_never_takes_less():
    small = step()
    for name, value in {"rows": 8, "tokens": 800, "drawn": 128, "adapter": 2 * ADAPTER}.items():
        assert peak(step(**{name: value})) >= peak(small)
    assert peak(step(gradient_checkpointing=False)) > peak(small)


def test_a_tied_table_counts_once():
    tied = SimpleNamespace(**(vars(LLAMA) | {"tie_word_embeddings": True}))
    assert (
        estimate(tied, parameters=PARAMETERS, adapter=0, rows=1, tokens=1, drawn=1, quantization="4bit")["weights"]
        < step(adapter=0)["weights"]
    )


def test_phi_2_trains_in_four_bits_in_less_than_12_gb():
    """By its published shape alone; rank 16 on all linear layers, one row of 1024 tokens at a time."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, PhiConfig

    from equipoise.training.assembly import trainable_parameters
    from equipoise.training.settings import TrainSettings

    shape = PhiConfig(
        vocab_size=51200,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
        partial_rotary_factor=0.4,
    )
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(shape)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 2_779_683_840  # as its model page says: 2.78 B
    adapter = trainable_parameters(model, TrainSettings())
    assert adapter == 32 * 16 * (4 * (2560 + 2560) + 2 * (2560 + 10240))  # q, k, v, dense; fc1, fc2
    step = {"parameters": parameters, "adapter": adapter, "rows": 1, "tokens": 1024, "drawn": 0}
    parts = estimate(shape, **step, quantization="4bit")
    tables = 2 * 51200 * 2560
    assert parts["weights"] == (parameters - tables) * 4.5 / 8 + 2 * tables  # 1.94 GB
    assert parts["adapter"] == 16 * adapter  # 0.38 GB
    assert parts["cache"] == 0  # nothing is drawn
    assert parts["activations"] == (32 * 2560 + 14 * 2560 + 3 * 10240) * 2 * 1024  # 0.30 GB
    assert parts["logits"] == 8 * 51200 * 1024  # 0.42 GB
    assert peak(parts) / GB == pytest.approx(3.04, abs=0.02)
    assert fits(parts, 12)
    assert peak(estimate(shape, **step)) / GB == pytest.approx(6.66, abs=0.05)  # in 16 bits
