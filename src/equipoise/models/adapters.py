"""An adapter on its base: told by a checksum, by names and by shapes whether it was made for it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equipoise.errors import UserError
from equipoise.models import files, tokenizers
from equipoise.models.files import HUB_NAME
from equipoise.models.quiet import explained, quiet
from equipoise.models.tables import base_layer, extend, rows_of_base, tables

if TYPE_CHECKING:
    from equipoise.models.settings import ModelSettings

BASE_FILE = "base.json"


def fingerprint(model: Any) -> str:
    """A checksum of names, shapes and a sample of every weight (as bf16, so that the loading dtype does not matter).

    It is the base's: an adapter on top and rows added for tokens do not change it.
    """
    return _digest((name, weight, rows) for name, weight, rows, _ in _weights(model))


def base_note(model: Any, name: str) -> dict[str, Any]:
    """What is kept beside an adapter to know its base again, also when that is loaded in another quantization."""
    return {
        "name": name,
        "fingerprint": fingerprint(model),
        "quantization": _quantization(model),
        "outline": _outline(model),
    }


def adapter_digest(model: Any) -> str | None:
    """A checksum of the adapter that a model brings, or None."""
    if not hasattr(model, "get_base_model"):
        return None
    own = ((name, weight, len(weight)) for name, weight in model.named_parameters() if _of_adapter(name))
    return _digest(own)


def _of_adapter(name: str) -> bool:
    return "lora_" in name or "trainable_tokens" in name


def _weights(model: Any) -> Iterator[tuple[str, torch.Tensor, int, bool]]:
    """Name, weight, rows that the base had, and whether it is an embedding table; of the base alone."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    of_tables = {id(table) for table in tables(base)}
    bias = getattr(base_layer(base.get_output_embeddings()), "bias", None)
    for name, weight in base.named_parameters():
        if _of_adapter(name):
            continue
        a_table = id(weight) in of_tables
        rows = rows_of_base(base) if a_table or weight is bias else len(weight) if weight.dim() else 0
        yield name.replace(".base_layer", "").replace(".token_adapter", ""), weight, rows, a_table


def _digest(weights: Iterable[tuple[str, torch.Tensor, int]], *, spread: bool = False) -> str:
    """Of the first values of each weight or, with `spread`, of as many from all over the base's rows."""
    digest = hashlib.sha256()
    for name, weight, rows in weights:
        digest.update(f"{name}{(rows, *weight.shape[1:]) if weight.dim() else ()}".encode())
        if weight.is_floating_point():
            flat = weight.detach()[:rows].flatten() if spread else weight.detach().flatten()
            sample = flat[:: len(flat) // 64 or 1][:64] if spread else flat[:64]
            digest.update(sample.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _quantization(model: Any) -> str | None:
    method = getattr(model, "quantization_method", None)
    return None if method is None else str(getattr(method, "value", method))


def _outline(model: Any) -> str:
    """The checksum of what quantization leaves alone: embedding tables, norms and biases."""
    kept = ((name, weight, rows) for name, weight, rows, table in _weights(model) if table or weight.dim() == 1)
    return _digest(kept, spread=True)


def _shipped(name: str) -> Path | None:
    """The folder of an adapter that comes with the package, or None."""
    if name != "testbed:questions-strong":
        return None
    from equipoise.testbed.questions import strong_path

    return strong_path()


def with_adapter(model: Any, tokenizer: Any, settings: ModelSettings) -> Any:
    """Put the adapter that the settings name onto its base; tokens that it was trained with are added to both.

    Raises:
        UserError: there is no such adapter, it is not safe to load, or it was made for another base.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    assert settings.adapter is not None
    folder = _shipped(settings.adapter) or Path(settings.adapter).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        if not HUB_NAME.fullmatch(settings.adapter):
            raise UserError(
                f"there is no adapter folder {settings.adapter}",
                where="model.adapter",
                fix="give the folder that training wrote (`final`), or a name on the Hugging Face Hub",
            )
        with explained(settings.adapter):
            folder = Path(snapshot_download(settings.adapter, allow_patterns=["*.json", "*.safetensors"]))
    files.check_folder(folder, trust_remote_code=settings.trust_remote_code, weights="adapter_model")
    config = PeftConfig.from_pretrained(str(folder))
    _check_base(model, folder, config.base_model_name_or_path, settings)
    _give_tokens(model, tokenizer, folder, config, settings)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (RuntimeError, ValueError) as error:
        raise _other_base(settings, str(error).splitlines()[0]) from error
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        unknown = set(stored.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    unknown = {n for n in unknown if "trainable_tokens" in n or ("embed" not in n and "lm_head" not in n)}
    if unknown:
        raise _other_base(settings, f"{len(unknown)} tensors do not match, for example {min(unknown)}")
    from equipoise.models.lora_sum import keep_small_updates
    from equipoise.models.token_rows import spare_copies

    spare_copies(adapted)
    keep_small_updates(adapted)
    return adapted


def _give_tokens(model: Any, tokenizer: Any, folder: Path, config: Any, settings: ModelSettings) -> None:
    """Add the tokens whose rows the adapter trains, under the ids that the tokenizer beside it gives them."""
    wanted = getattr(config, "trainable_token_indices", None) or []
    wanted = {i for ids in wanted.values() for i in ids} if isinstance(wanted, dict) else set(wanted)
    if not wanted:
        return
    if (folder / "tokenizer.json").is_file():
        theirs = tokenizers.load(str(folder), local=True, trust_remote_code=settings.trust_remote_code)
        names = {i: theirs.convert_ids_to_tokens(i) for i in sorted(wanted)}
        known = tokenizer.get_vocab()
        new = [str(theirs.added_tokens_decoder[i]) for i, name in names.items() if name not in known]
        if new:
            tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
        moved = [name for i, name in names.items() if tokenizer.convert_tokens_to_ids(name) != i]
        if moved:
            raise _other_base(settings, f"the tokenizers give {moved[0]} different ids")
    elif max(wanted) >= len(tokenizer):
        raise UserError(
            f"the adapter {settings.adapter} trains tokens that the base does not know, and brings no tokenizer",
            where="model.adapter",
            fix="copy the tokenizer it was trained with into its folder",
        )
    extend(model, max(wanted) + 1)


def _check_base(model: Any, folder: Path, base: str | None, settings: ModelSettings) -> None:
    """By our own checksum where training left one, else by the Hub name that PEFT recorded."""
    note = folder / BASE_FILE
    if note.is_file():
        noted = files.read_json(note)
        same = noted.get("fingerprint") == fingerprint(model)
        if not same and noted.get("quantization") != _quantization(model):
            same = noted.get("outline") == _outline(model)
        if not same:
            raise _other_base(settings, "the base's weights are not those it was trained on")
        return
    both_hub = base and not Path(base).exists() and not Path(base).is_absolute() and not Path(settings.path).exists()
    if both_hub and settings.path != "testbed" and base != settings.path:
        raise _other_base(settings, f"it was trained on {base}")


def _other_base(settings: ModelSettings, detail: str) -> UserError:
    return UserError(
        f"the adapter {settings.adapter} was made for another base than {settings.path}: {detail}",
        where="model.adapter",
        fix="set model.path to the base that the adapter was trained on",
    )
