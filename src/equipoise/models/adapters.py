"""An adapter on its base: told by a checksum, by names and by shapes whether it was made for it."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equipoise.errors import UserError
from equipoise.models import files
from equipoise.models.quiet import explained, quiet

if TYPE_CHECKING:
    from equipoise.models.settings import ModelSettings

BASE_FILE = "base.json"
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def fingerprint(model: Any) -> str:
    """A checksum of names, shapes and a sample of every weight (as bf16, so that the loading dtype does not matter)."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        if weight.is_floating_point():
            digest.update(weight.detach().flatten()[:64].to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def with_adapter(model: Any, settings: ModelSettings) -> Any:
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    assert settings.adapter is not None
    folder = Path(settings.adapter).expanduser()
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
    _check_base(model, folder, PeftConfig.from_pretrained(str(folder)).base_model_name_or_path, settings)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (RuntimeError, ValueError) as error:
        raise _other_base(settings, str(error).splitlines()[0]) from error
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        unknown = set(stored.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    unknown = {name for name in unknown if "embed" not in name and "lm_head" not in name}
    if unknown:
        raise _other_base(settings, f"{len(unknown)} tensors do not match, for example {min(unknown)}")
    return adapted


def _check_base(model: Any, folder: Path, base: str | None, settings: ModelSettings) -> None:
    """By our own checksum where training left one, else by the Hub name that PEFT recorded."""
    note = folder / BASE_FILE
    if note.is_file():
        if files.read_json(note).get("fingerprint") != fingerprint(model):
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
