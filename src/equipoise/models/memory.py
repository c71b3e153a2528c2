"""How much memory GRPO with an adapter takes, by arithmetic: weights, adapter and optimizer, activations, answers."""

from __future__ import annotations

from typing import Any

BITS = {None: 16.0, "8bit": 8.5, "4bit": 4.5}  # a weight, its share of the quantization constants included
GB = 1e9


def estimate(
    config: Any,
    *,
    parameters: int,
    adapter: int,
    rows: int,
    tokens: int,
    drawn: int,
    quantization: str | None = None,
    bytes_each: float = 2.0,
    gradient_checkpointing: bool = True,
) -> dict[str, float]:
    """Bytes by part of one optimizer step on one device.

    - `weights`: of the base; the embedding table and the head stay in 16 bits when the rest is quantized;
    - `adapter`: 4 bytes each for weight, gradient and Adam's two moments, 16 together;
    - `cache`: keys and values of `drawn` answers at once, 2 x layers x key-value heads x head size a token;
    - `activations`: with checkpointing the input of each layer plus one layer's inside (about 14 hidden sizes and three
      of its feed-forward), else the inside of all;
    - `logits`: of the answer tokens of `rows` in float32, once and once more for the gradient.

    The reference is the base without the adapter, so it costs nothing.

    Args:
        config: of the model, as transformers has it.
        parameters: of the base.
        adapter: trained parameters.
        rows: answers whose gradient is computed at once.
        tokens: of a prompt with its answer.
        drawn: answers that are drawn at once.
        bytes_each: of an activation and of a weight that is not quantized.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    tied = getattr(config, "tie_word_embeddings", False)
    tables = config.vocab_size * hidden * (1 if tied else 2)
    quantized = 0 if quantization is None else max(parameters - tables, 0)
    inside = (14 * hidden + 3 * config.intermediate_size) * bytes_each
    each = layers * hidden * bytes_each + inside if gradient_checkpointing else layers * inside
    return {
        "weights": quantized * BITS[quantization] / 8 + (parameters - quantized) * bytes_each,
        "adapter": 16.0 * adapter,
        "cache": 2.0 * layers * groups * size * bytes_each * drawn * tokens,
        "activations": each * rows * tokens,
        "logits": 8.0 * config.vocab_size * rows * tokens,
    }


def fits(parts: dict[str, float], gigabytes: float, *, reserve: float = 0.1) -> bool:
    """Whether a step fits into a device of so many gigabytes, with a share of it kept for fragments and buffers.

    Drawing and learning take turns, so only the larger of the cache and of what learning needs counts.
    """
    return peak(parts) <= gigabytes * GB * (1 - reserve)


def peak(parts: dict[str, float]) -> float:
    """Bytes at the worst moment."""
    return parts["weights"] + parts["adapter"] + max(parts["cache"], parts["activations"] + parts["logits"])


def in_words(parts: dict[str, float]) -> str:
    """The parts and their peak in one line."""
    named = ", ".join(f"{name} {value / GB:.2f}" for name, value in parts.items())
    verdict = "fits" if fits(parts, 24) else "does not fit"
    return f"about {peak(parts) / GB:.2f} GB at most ({named}); {verdict} a 24 GB card"
