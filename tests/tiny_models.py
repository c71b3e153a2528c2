"""Random-weight models of many architectures, their tokenizer and examples: small enough to train in a test."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from equipoise.records import Example, Message

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 3,
    "eos_token_id": 2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "mistral": {"sliding_window": None},
    "phi": {"num_key_value_heads": 2},
    "gemma2": {"query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256},
}


@cache
def _backend() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["user assistant system the call for pandas numpy concat stack"] * 3, learner)
    return tokenizer.to_str()


def tiny_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE with about 300 tokens, four special tokens and a chat template; a new one at each call."""
    given = {"pad_token": "<|pad|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE, **options}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_backend()), **given)


def tiny_model(
    architecture: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> Any:
    """A random-weight causal language model for `tiny_tokenizer`."""
    torch.manual_seed(seed)
    shape = {} if architecture == "gpt2" else SHAPE
    ids = {name: SHAPE[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id", "initializer_range")}
    options = {**ids, **shape, "vocab_size": len(tiny_tokenizer()), **ARCHITECTURES[architecture], **changes}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**options))
    return model.to(dtype).eval()


def tiny_folder(
    folder: Path, architecture: str = "llama", *, change: Callable[[Any], None] | None = None, **changes: Any
) -> Path:
    """A folder as `save_pretrained` writes it; `change` may do something to the model first."""
    model = tiny_model(architecture, **changes)
    if change is not None:
        change(model)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_examples(count: int = 8, *, long_ones: bool = True) -> list[Example]:
    """Questions and answers of different lengths."""
    out = []
    for i in range(count):
        question = f"the call for {i}" + (" numpy" * (i % 4) if long_ones else "")
        turns = [Message(role="user", content=question), Message(role="assistant", content=f"pandas.concat{i * 7}")]
        out.append(Example(id=f"e{i}", messages=turns))
    return out
