"""The built-in recipes: one YAML file each, found by name; adding one touches no code."""

import reprlib
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from equipoise.config import load_yaml, nearest
from equipoise.errors import UserError
from equipoise.journal import write_atomic

FOLDER = Path(str(files("equipoise"))) / "recipes"


def names() -> list[str]:
    """List the built-in recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def described() -> list[tuple[str, str]]:
    """List every built-in recipe with the description that it gives of itself."""
    return [(name, load_yaml(FOLDER / f"{name}.yaml").get("description", "")) for name in names()]


def find(recipe: str) -> Path:
    """Find a recipe: a path to a YAML file, or the name of a built-in one.

    Raises:
        UserError: there is no such file and no such name; the nearest name is suggested.
    """
    if recipe in names():
        return FOLDER / f"{recipe}.yaml"
    path = Path(recipe)
    with suppress(OSError):  # a name too long for a file is none
        if path.is_file():
            return path
    guess = nearest(recipe, names())
    raise UserError(
        f"there is no recipe {reprlib.repr(recipe)}",
        fix=(f"did you mean {guess!r}? " if guess else "")
        + "`equipoise recipes list` names them; a path to a YAML file works too",
    )


def copy(name: str, to: Path | None = None) -> Path:
    """Copy a recipe to the file or into the folder `to` (default NAME.yaml here).

    Raises:
        UserError: there is no such recipe, the file exists already, or its folder cannot be written to.
    """
    source = find(name)
    target = to or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UserError("the file exists already", where=str(target), fix="name another file, or remove it first")
    write_atomic(target, source.read_bytes())
    return target
