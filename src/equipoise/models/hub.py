"""Models of the Hugging Face Hub fetched into its cache ahead of time, weights as safetensors alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equipoise import catalogue
from equipoise.config import load_yaml
from equipoise.errors import UserError
from equipoise.models import files
from equipoise.models.files import HUB_NAME
from equipoise.models.quiet import explained

WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
UNWANTED = ["*/*", "consolidated*"]  # other formats in folders of their own, and the same weights a second time
SPARE = 2**30  # bytes that a download leaves free


def named() -> dict[str, list[str]]:
    """The Hub models that the built-in recipes name, each with those recipes."""
    out: dict[str, list[str]] = {}
    for recipe in catalogue.names():
        for name in dict.fromkeys(_models(load_yaml(catalogue.find(recipe)))):
            out.setdefault(name, []).append(recipe)
    return out


def _models(values: Any) -> Iterator[str]:
    if isinstance(values, list):
        for value in values:
            yield from _models(value)
    if isinstance(values, dict):
        for key, value in values.items():
            if key in ("path", "adapter") and isinstance(value, str) and _on_hub(value):
                yield value
            yield from _models(value)


def _on_hub(name: str) -> bool:
    return "/" in name and HUB_NAME.fullmatch(name) is not None


def state(name: str) -> str:
    """Say how much of a model is in the cache, without asking the Hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=WANTED, ignore_patterns=UNWANTED))
        weights = "adapter_model" if (folder / "adapter_config.json").is_file() else "model"
        files.check_safetensors(folder, weights)
    except LocalEntryNotFoundError:
        return "not in the cache"
    except UserError:
        return "in the cache in part"
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return f"in the cache, {_gigabytes(size)}"


def download(name: str) -> tuple[Path, int]:
    """Fetch a model, or what is missing of it, into the cache; return its folder and the bytes that were fetched.

    Raises:
        UserError: no Hub name, no such model or no access to it, no weights as safetensors, no connection, no space.
    """
    from huggingface_hub import snapshot_download

    if not _on_hub(name):
        shipped = name.partition(":")[0] == "testbed"
        raise UserError(
            f"{name} comes with the package" if shipped else f"{name} is no name on the Hugging Face Hub",
            fix="give owner/model; `equipoise models list` shows short names and those that the recipes name",
        )
    wanted: Any = {"allow_patterns": WANTED, "ignore_patterns": UNWANTED}
    with explained(name), _reached(name):
        plan = snapshot_download(name, dry_run=True, **wanted)
    if not any(file.filename.endswith(".safetensors") for file in plan):
        raise UserError(
            f"{name} has no weights as safetensors, and others are not loaded",
            fix="name a model with safetensors, or convert it and give its folder as model.path",
            docs="docs/models.md",
        )
    size = sum(file.file_size or 0 for file in plan if file.will_download)
    _check_space(name, size)
    with explained(name), _reached(name):
        return Path(snapshot_download(name, **wanted)), size


@contextmanager
def _reached(name: str) -> Iterator[None]:
    """Say in words that the Hub cannot be reached or refuses the token; `explained` knows the rest."""
    from huggingface_hub import errors as hub
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  its httpx, whichever

    silent = (hub.DryRunError, hub.LocalEntryNotFoundError, HTTPError, ConnectionError, TimeoutError)
    try:
        yield
    except silent as error:
        causes = list(_causes(error))
        if any(isinstance(each, (hub.RepositoryNotFoundError, hub.RevisionNotFoundError)) for each in causes):
            raise  # a gated model is one that was not found
        status = next((code for each in causes if (code := _status(each))), None)
        if status in (401, 403):
            raise UserError(
                f"the Hugging Face Hub refuses the token (HTTP {status})",
                where=name,
                fix="set a valid HF_TOKEN, run `hf auth login`, or unset HF_TOKEN for a public model",
            ) from None
        raise UserError(
            f"the Hugging Face Hub cannot be reached{f' (HTTP {status})' if status else ''}",
            where=name,
            fix="check the connection (and HF_HUB_OFFLINE) and run the same command again; it goes on where it was",
        ) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _check_space(name: str, size: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    folder = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise UserError(
            f"{name} needs {_gigabytes(size)}, and {_gigabytes(free)} are free",
            where=str(folder),
            fix="free some space, or set HF_HOME to a larger disk",
            docs="docs/troubleshooting.md#disk",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
