"""A tiny Llama and its tokenizer written as a GGUF file, as llama.cpp's converter does."""

import json

import gguf
import numpy as np
from tiny_models import SPECIAL, TEMPLATE, tiny_tokenizer

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return f"{OUTER[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def permuted(weight, heads):
    """llama.cpp's order of the rows of query and key, from its own converter."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write(path, model, *, head=True, without=(), architecture="llama", kind=None, template=TEMPLATE):
    """Write a tiny Llama and its tokenizer as llama.cpp does."""
    config, tokenizer = model.config, tiny_tokenizer()
    out = gguf.GGUFWriter(path, architecture)
    out.add_license("apache-2.0")
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_key_length(config.head_dim)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_rope_dimension_count(config.head_dim)
    out.add_vocab_size(config.vocab_size)
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    out.add_token_merges([" ".join(pair) for pair in merges])
    out.add_bos_token_id(vocab["<|endoftext|>"])
    out.add_eos_token_id(vocab["<|im_end|>"])
    out.add_pad_token_id(vocab["<|pad|>"])
    out.add_add_bos_token(False)
    out.add_chat_template(template)
    for name, weight in model.state_dict().items():
        if name in without or (name == "lm_head.weight" and not head):
            continue
        values = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = permuted(values, heads)
        if kind is not None and values.ndim > 1 and values.shape[-1] % 32 == 0:
            out.add_tensor(gguf_name(name), gguf.quantize(values, kind), raw_dtype=kind)
        else:
            out.add_tensor(gguf_name(name), np.ascontiguousarray(values))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
