"""A run directory: its resolved config, its manifest, and the files that a run leaves in it."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from equipoise.config import dump_yaml
from equipoise.errors import UserError
from equipoise.journal import Journal, write_atomic, write_json

SCHEMA_VERSION = 1
PACKAGES = (
    "equipoise",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "numpy",
    "scipy",
)


class Run:
    """An opened run directory."""

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest

    @staticmethod
    def named(root: Path, name: str) -> Path:
        """Join a folder and the name of a run; a name that would leave the folder is refused (UserError)."""
        if not name or name in {".", ".."} or any(bad in name for bad in ("/", "\\", "..", "\0")):
            raise UserError(f"{name!r} is no name for a run", where="name", fix="use letters, digits, '-' and '_'")
        return root / name

    @classmethod
    def open_or_create(
        cls, path: Path | str, config: BaseModel, *, data_hashes: Mapping[str, str], seed: int, device: str
    ) -> "Run":
        """Open the run of this config in `path`, or start it there.

        Raises:
            UserError: the folder cannot be written, holds a run with another config or other data, or was written by
                a newer version.
        """
        path = Path(path)
        if (path / "manifest.json").exists():
            run = cls.open(path)
            run._refuse_changes(config, data_hashes)
            return run
        if path.is_dir() and any(path.iterdir()):
            raise UserError(
                "the folder is not empty and holds no run", where=str(path), fix="choose another with --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create the run directory: {error}", where=str(path), fix="choose another with --out"
            ) from None
        write_atomic(path / "config.yaml", dump_yaml(config))
        write_json(path / "manifest.json", _manifest(data_hashes, seed, device))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Open a run directory that is there.

        Raises:
            UserError: it is none, or a newer version wrote it.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError("this is no run directory: it has no readable manifest.json", where=str(path)) from None
        if manifest.get("schema_version", 0) > SCHEMA_VERSION:
            raise UserError(
                f"a newer version of Equipoise wrote this run (schema {manifest['schema_version']})",
                where=str(path / "manifest.json"),
                fix="upgrade with `pip install -U equipoise`",
            )
        return cls(path, manifest)

    def journal(self, name: str, *, key: Callable[[dict[str, Any]], Hashable] | None = None) -> Journal:
        """The journal of that name in this run; one writer at a time."""
        return Journal(self.path / name, key=key)

    def _refuse_changes(self, config: BaseModel, data_hashes: Mapping[str, str]) -> None:
        before = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        now = yaml.safe_load(dump_yaml(config))
        changed = [f"{key} (was {a!r}, is {b!r})" for key, a, b in _differences(before, now)]
        hashes = self.manifest.get("data", {})
        changed += [f"the data of {k}" for k in {**hashes, **data_hashes} if hashes.get(k) != data_hashes.get(k)]
        if changed:
            raise UserError(
                "this folder holds another run; changed since its start: " + "; ".join(changed[:5]),
                where=str(self.path),
                fix="choose another folder with --out, or go back to what it was started with",
            )


def _differences(a: Any, b: Any, at: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = dict.fromkeys([*a, *b])
        return [found for key in keys for found in _differences(a.get(key), b.get(key), f"{at}.{key}".lstrip("."))]
    return [] if a == b else [(at, a, b)]


def _manifest(data_hashes: Mapping[str, str], seed: int, device: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": seed,
        "device": device,
        "data": dict(data_hashes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Name the commit of the working folder, if it is a git checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
