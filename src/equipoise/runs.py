"""A run directory: its resolved config, its manifest, and the files that a run leaves in it."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from equipoise import disk
from equipoise.config import dump_yaml, resolve
from equipoise.console import warn
from equipoise.errors import UserError
from equipoise.journal import Journal, write_atomic, write_json

SELECTION = "selection.json"  # which updates `data.select` chose
SCHEDULE = "schedule.json"  # learning rate and epochs that `auto` came to
THRESHOLDS = "thresholds.json"  # what `tau: auto` came to
FALSE_ALARM = 0.05  # what it aims at where the recipe does not say
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


NAME = re.compile(r"\w[\w.+-]{0,99}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names on Windows


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Tell who interrupts the work on a run that nothing is lost; where training was cut off, it has said so already.

    Raises:
        KeyboardInterrupt: with how to go on as its text, which the command line prints.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if str(stop) or not (folder / "manifest.json").exists():
            raise
        raise KeyboardInterrupt(
            f"interrupted: all that was finished is saved in {folder}; run the same command again to go on from there"
        ) from None


class Run:
    """An opened run directory."""

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest

    @staticmethod
    def named(root: Path, name: str) -> Path:
        """Join a folder and the name of a run; a name that would leave the folder is refused (UserError)."""
        if not NAME.fullmatch(name) or ".." in name or name.endswith(".") or RESERVED.fullmatch(name):
            raise UserError(
                f"{name!r} is no name for a run",
                where="name",
                fix="use letters, digits, '-', '_' and single dots, or give a folder with --out",
            )
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
        with disk.explained(path):
            return cls._opened_or_created(path, config, data_hashes, seed, device)

    @classmethod
    def _opened_or_created(
        cls, path: Path, config: BaseModel, data_hashes: Mapping[str, str], seed: int, device: str
    ) -> "Run":
        if (path / "manifest.json").exists():
            run = cls.open(path)
            run._refuse_changes(config, data_hashes)
            run._tell_other_versions()
            return run
        # a start that was cut off leaves the config alone, and a desktop its hidden files
        if path.is_dir() and any(p.name != "config.yaml" and not p.name.startswith(".") for p in path.iterdir()):
            raise UserError(
                "the folder is not empty and holds no run", where=str(path), fix="choose another with --out"
            )
        disk.make_folder(path)
        write_atomic(path / "config.yaml", dump_yaml(config))
        write_json(path / "manifest.json", _manifest(data_hashes, seed, device))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Open a run directory that is there.

        Raises:
            UserError: it is none, or a newer version wrote it.
        """
        file = Path(path) / "manifest.json"
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            schema = int(manifest["schema_version"])
        except OSError as error:
            fix = "give the folder that `equipoise run` or `equipoise protocol` wrote"
            raise UserError(f"this is no run directory: {error.strerror}", where=str(file), fix=fix) from None
        except (ValueError, KeyError, TypeError):
            raise UserError(
                "the manifest of this run is damaged", where=str(file), fix="start the run again in another folder"
            ) from None
        if schema > SCHEMA_VERSION:
            raise UserError(
                f"a newer version of Equipoise wrote this run (schema {schema})",
                where=str(file),
                fix="upgrade with `pip install -U equipoise`",
            )
        return cls(Path(path), manifest)

    @property
    def working_directory(self) -> Path:
        """Return the folder that the run was started in, or the current one where that is unknown or gone."""
        started = Path(self.manifest.get("working_directory", "."))
        return started if started.is_dir() else Path.cwd()

    def journal(self, name: str, *, key: Callable[[dict[str, Any]], Hashable] | None = None) -> Journal:
        """The journal of that name in this run; one writer at a time."""
        return Journal(self.path / name, key=key)

    def _refuse_changes(self, config: BaseModel, data_hashes: Mapping[str, str]) -> None:
        """Compare with what the run was started with; a setting that a newer version added had its default.

        What a recipe says of itself may change: it decides nothing.
        """
        before = resolve(type(config), self.path / "config.yaml").model_dump(mode="json")
        now = config.model_dump(mode="json")
        changed = [f"{key} (was {a!r}, is {b!r})" for key, a, b in _differences(before, now) if key != "description"]
        hashes = self.manifest.get("data", {})
        changed += [f"the data of {k}" for k in {**hashes, **data_hashes} if hashes.get(k) != data_hashes.get(k)]
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise UserError(
                f"this folder holds another run; changed since its start: {'; '.join(changed[:5])}{more}",
                where=str(self.path),
                fix="choose another folder with --out, or go back to what it was started with",
                docs="docs/troubleshooting.md#resume",
            )

    def _tell_other_versions(self) -> None:
        for name, before in self.manifest.get("versions", {}).items():
            if (now := _version(name)) != before:
                warn(f"{name} was {before} when this run was started and is {now or 'not there'}; numbers may differ")


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
        "working_directory": str(Path.cwd()),  # which relative paths in the config start from
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
