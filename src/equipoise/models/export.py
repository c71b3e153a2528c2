"""A trained model made ready to hand on: written into its base for programs that load plain models, or the adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from equipoise.errors import UserError
from equipoise.journal import atomic_directory
from equipoise.models import files
from equipoise.models.loading import Loaded, locate
from equipoise.models.quiet import quiet
from equipoise.models.settings import ModelSettings


def merge(loaded: Loaded) -> Loaded:
    """Write the adapter and the rows of its tokens into the base's weights, in place; a model without one stays.

    Raises:
        UserError: the base is quantized: its weights could take the adapter up only by rounding it.
    """
    if not hasattr(loaded.model, "get_base_model"):
        return loaded
    if getattr(loaded.model.get_base_model(), "quantization_method", None) is not None:
        raise UserError(
            "an adapter cannot be merged into a quantized base without rounding it",
            where="model.quantization",
            fix="load the base unquantized (model.quantization=null); the adapter fits it too",
        )
    with quiet():
        model = loaded.model.merge_and_unload(safe_merge=True)
    model.__dict__.pop("rows_of_base", None)  # from here on, the tokens belong to the base
    return Loaded(model.eval(), loaded.tokenizer, loaded.name)


def save_merged(loaded: Loaded, folder: Path, documents: Mapping[str, str]) -> Path:
    """Write a plain model and its tokenizer as one folder that transformers and servers load; return it.

    Args:
        documents: texts that go with it, by file name.
    """
    with atomic_directory(folder) as aside:
        loaded.model.save_pretrained(str(aside))
        loaded.tokenizer.save_pretrained(str(aside))
        _write(aside, documents)
    return folder


def save_adapter(settings: ModelSettings, folder: Path, documents: Mapping[str, str]) -> Path:
    """Copy an adapter with its tokenizer, naming its base so that PEFT alone loads both; return the folder.

    A base of the Hub is named as there, a local one by its whole path.

    Raises:
        UserError: there is no adapter, it is not safe to load, or its base is not there.
    """
    if settings.adapter is None:
        raise UserError(
            f"{settings.path} holds no adapter", where="--adapter", fix="leave --adapter out to export the whole model"
        )
    source = Path(settings.adapter)
    files.check_folder(source, trust_remote_code=settings.trust_remote_code, weights="adapter_model")
    base, local = locate(settings.path)
    config = files.read_json(source / "adapter_config.json")
    config["base_model_name_or_path"] = str(Path(base).resolve()) if local else base
    config["revision"] = settings.revision
    with atomic_directory(folder) as aside:
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name not in ("MANIFEST.json", "README.md") and file.suffix not in files.UNSAFE:
                shutil.copyfile(file, aside / file.name)
        _write(aside, {**documents, "adapter_config.json": json.dumps(config, indent=2) + "\n"})
    return folder


def _write(folder: Path, documents: Mapping[str, str]) -> None:
    for name, text in documents.items():
        (folder / name).write_text(text, encoding="utf-8")
