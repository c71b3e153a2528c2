"""The built-in recipes: one YAML file each, found by name; adding one touches no code."""

from importlib.resources import files
from pathlib import Path

from equipoise.config import load_yaml, nearest
from equipoise.errors import UserError

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
    if path.is_file():
        return path
    guess = nearest(recipe, names())
    raise UserError(
        f"there is no recipe {recipe!r}",
        fix=(f"did you mean {guess!r}? " if guess else "")
        + "`equipoise recipes list` names them; a path to a YAML file works too",
    )


def copy(name: str, to: Path | None = None) -> Path:
    """Copy a built-in recipe to `to` (default NAME.yaml here); an existing file is never overwritten."""
    source = find(name)
    target = to or Path(source.name)
    if target.exists():
        raise UserError(f"{target} exists already", fix="name another file, or remove it first")
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return target
