"""Which model a path means: a run directory with one trained model, a folder in a run, a model folder, or a name."""

import json
from pathlib import Path

from equipoise.config import Section, resolve
from equipoise.errors import UserError
from equipoise.models.settings import ModelSettings

POINTER = "model.json"  # in a run of several stages: which of its models is meant by the run


class _ModelOf(Section, extra="ignore"):
    """The one section of a run's config that is read here."""

    model: ModelSettings = ModelSettings()


def run_of(path: Path) -> Path | None:
    """Find the run directory that `path` is, or lies in."""
    folders = (path, *path.absolute().parents)
    return next((f for f in folders if (f / "manifest.json").is_file() and (f / "config.yaml").is_file()), None)


def trained_model(name: str, overrides: list[str] | None = None, *, base: ModelSettings | None = None) -> ModelSettings:
    """Say how to load `name`; an adapter in a run goes onto the base that the run's config names.

    Args:
        overrides: `model.*=...` change that base; others are passed over.
        base: how to load what lies in no run, changed already.

    Raises:
        UserError: the run holds no trained model, or several.
    """
    path, run = Path(name), run_of(Path(name))
    of_model = [override for override in overrides or [] if override.startswith("model.")]
    if run is None and base is not None:
        settings = base
    else:
        settings = resolve(_ModelOf, run / "config.yaml" if run else None, of_model).model
    if run is not None and path.resolve() == run.resolve() and (run / POINTER).is_file():
        path = run / json.loads((run / POINTER).read_text(encoding="utf-8"))["model"]
    if run is not None and not _is_model(path):
        finals = sorted(
            found
            for pattern in ("final", "*/final", "cells/*/*/final")
            for found in path.glob(pattern)
            if found.is_dir()
        )
        if len(finals) != 1:
            names = ", ".join(str(final.parent) for final in finals) or "none of them has finished"
            raise UserError(f"{name} holds {len(finals)} trained models", fix=f"name one of them: {names}")
        path = finals[0]
    elif (path / "final").is_dir():
        path = path / "final"
    if (path / "adapter_config.json").is_file():
        return settings.model_copy(update={"adapter": str(path)})
    return settings.model_copy(update={"path": str(path) if path.exists() else name, "adapter": None})


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in ("adapter_config.json", "config.json"))
