"""Checks of a model folder before anything in it is loaded: no pickle, no remote code, no damaged weights."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from equipoise.errors import UserError

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # may run code when they are loaded
PICKLES = tuple(f"*{suffix}" for suffix in UNSAFE)


def check_folder(folder: Path, *, trust_remote_code: bool, weights: str = "model") -> None:
    """Refuse a model folder (`weights="model"`) or adapter folder (`"adapter_model"`) that cannot be loaded safely.

    Raises:
        UserError: no config, remote code that was not opted in, weights missing, as pickle only, or cut short.
    """
    config = "config.json" if weights == "model" else "adapter_config.json"
    if not (folder / config).is_file():
        raise UserError(
            f"{folder} has no {config}, so it is not a {'model' if weights == 'model' else 'PEFT adapter'} folder",
            where="model.path" if weights == "model" else "model.adapter",
            fix="give the folder that save_pretrained wrote",
        )
    if not trust_remote_code:
        check_no_remote_code(folder)
    check_safetensors(folder, weights)


def check_no_remote_code(folder: Path) -> None:
    """Refuse a folder whose config or tokenizer names Python code of its own (`auto_map`)."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and read_json(path).get("auto_map"):
            raise UserError(
                "this model brings its own Python code (auto_map), which would run on your machine",
                where=f"{path}:auto_map",
                fix="read that code, then set model.trust_remote_code: true, or use a model without it",
                docs="docs/models.md#remote-code",
            )


def read_json(path: Path) -> dict:
    """The object in a JSON file; a `UserError` that names the file if it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=str(path), fix="download the model again") from error
    if not isinstance(value, dict):
        raise UserError("expected a JSON object", where=str(path), fix="download the model again")
    return value


def check_safetensors(folder: Path, weights: str) -> None:
    """Refuse weights that are missing, pickled, or shorter than their headers say."""
    index = folder / f"{weights}.safetensors.index.json"
    if index.is_file():
        files = sorted({folder / name for name in read_json(index).get("weight_map", {}).values()})
    else:
        files = [folder / f"{weights}.safetensors"]
    missing = [path for path in files if not path.is_file()]
    if missing and any(found for pattern in PICKLES for found in folder.glob(pattern)):
        raise UserError(
            f"{folder} holds weights as Python pickles only; loading a pickle can run any code",
            where=str(folder),
            fix="convert the weights to safetensors (save_pretrained does) on a machine where that is safe",
            docs="docs/models.md#safetensors",
        )
    if missing:
        raise UserError(f"weights are missing: {missing[0].name}", where=str(folder), fix="download the model again")
    for path in files:
        problem = damage(path)
        if problem:
            raise UserError(
                f"damaged weights: {problem}",
                where=str(path),
                fix="download or copy this file again; if a run left it, start that run in a new folder",
            )


def damage(path: Path) -> str | None:
    """What is wrong with a safetensors file by its header and size, or None."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            return f"{size} bytes, too short for a header"
        (length,) = struct.unpack("<Q", head)
        if length > size - 8:
            return f"the header says {length} bytes, the file has {size}"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return "the header is not readable"
    expected = 8 + length + max(ends, default=0)
    return None if expected == size else f"{size} bytes where the header promises {expected}"
