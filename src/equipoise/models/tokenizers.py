"""The tokenizer beside its model: a pad that is not the end of sequence, tables that fit and never shrink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equipoise.data.formatting import PLAIN_TEMPLATE, end_of_turn_ids
from equipoise.errors import UserError
from equipoise.models.files import read_json
from equipoise.models.tables import grow

_PADS = ("<|pad|>", "<pad>", "[PAD]", "<PAD>", "<|padding|>", "<|finetune_right_pad_id|>", "<|vision_pad|>")
PROBE = "The user's  call: np.stack(x_1, 42)\n\tIt isn't É"
_SPARE = ("<|endoftext|>", "<|reserved_special_token_0|>", "<unk>", "<|unk|>", "[UNK]", "<unused0>")


def fit(model: Any, tokenizer: Any, *, chat_template: str | None = None) -> None:
    """Make model and tokenizer agree, in place: template, table sizes, pad and stop tokens.

    Raises:
        UserError: the tokenizer knows more tokens than the embedding table has rows, or the template file is missing.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise UserError(
            f"the tokenizer's highest token id is {highest}, but the embedding table has {rows} rows",
            where="model.path",
            fix="use the tokenizer that belongs to these weights",
        )
    if chat_template is not None:
        tokenizer.chat_template = _opening(tokenizer, chat_template) + _template(chat_template)
    _give_pad(model, tokenizer)
    _give_stops(model, tokenizer)


def load(source: str, *, local: bool, **options: Any) -> Any:
    """The tokenizer of a model; where its folder names no class, the one that splits text as `tokenizer.json` does.

    `AutoTokenizer` then picks a class by the model's type, and some of those rebuild their own splitting rules.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    stored, config = Path(source, "tokenizer.json"), Path(source, "tokenizer_config.json")
    if not local or not stored.is_file() or (config.is_file() and read_json(config).get("tokenizer_class")):
        return tokenizer
    from tokenizers import Tokenizer

    if Tokenizer.from_file(str(stored)).encode(PROBE, add_special_tokens=False).ids == tokenizer.encode(
        PROBE, add_special_tokens=False
    ):
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(source, **options)


def _opening(tokenizer: Any, template: str) -> str:
    """Where the tokenizer begins every text with a token (Gemma's models say nothing sensible without it), so does
    the plain template; rendered chats get no such token otherwise."""
    ids = tokenizer("a").input_ids
    begins = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return "{{ bos_token }}" if template == "plain" and begins else ""


def _template(name: str) -> str:
    if name == "plain":
        return PLAIN_TEMPLATE
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f"there is no chat template file {name}", where="model.chat_template", fix="give `plain` or a Jinja file"
        )
    return path.read_text(encoding="utf-8")


def _give_pad(model: Any, tokenizer: Any) -> None:
    """PAD = EOS would teach a model never to stop wherever code masks labels by the pad id."""
    eos = tokenizer.eos_token_id
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == eos:
        vocab = tokenizer.get_vocab()
        stops = {eos, *end_of_turn_ids(tokenizer)}
        own = [t for t in (tokenizer.unk_token, tokenizer.bos_token) if t]
        choice = next((t for t in (*_PADS, *_SPARE, *own) if t in vocab and vocab[t] not in stops), "<|pad|>")
        tokenizer.add_special_tokens({"pad_token": choice})
        pad: Any = tokenizer.pad_token_id
        grow(model, pad + 1)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def _give_stops(model: Any, tokenizer: Any) -> None:
    """`generate` should stop where the chat template ends a turn, also when the config names another token."""
    if model.generation_config is None:
        return
    known: Any = model.generation_config.eos_token_id
    stops: list[int] = [] if known is None else [known] if isinstance(known, int) else list(known)
    stops += [i for i in end_of_turn_ids(tokenizer) if i not in stops]
    if stops:
        model.generation_config.eos_token_id = stops[0] if len(stops) == 1 else stops
