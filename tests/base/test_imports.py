"""What is light stays light: no torch before it is needed, and help at once."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import equipoise

PACKAGE = Path(equipoise.__file__).parent
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "matplotlib")
LIGHT_ROOMS = ("metrics", "schedules", "report", "testbed")
LIGHT_FILES = ("data/loading.py", "data/jsonl.py", "data/rows.py", "protocols/analysis.py", "protocols/single.py")


def _modules() -> list[str]:
    files = [
        *PACKAGE.glob("*.py"),
        *(file for room in LIGHT_ROOMS for file in (PACKAGE / room).glob("*.py")),
        *PACKAGE.glob("*/settings.py"),
        *(PACKAGE / name for name in LIGHT_FILES),
    ]
    parts = (file.relative_to(PACKAGE.parent).with_suffix("").parts for file in sorted({*files}))
    return [".".join(part for part in found if part != "__init__") for found in parts]


@pytest.mark.skipif(os.name == "nt", reason="forks")
def test_no_light_module_brings_the_heavy_libraries_along():
    """Each alone in a fork of one clean process, so that none hides behind another; what they may need is there."""
    script = f"""
import importlib, os, sys, traceback
import filelock, jinja2, matplotlib.figure, numpy, pydantic.main, pydantic.types, scipy.optimize, scipy.stats
import yaml, zoneinfo
for name in {_modules()!r}:
    if (child := os.fork()) == 0:
        try:
            importlib.import_module(name)
            brought = [heavy for heavy in {HEAVY[:5]!r} if heavy in sys.modules]
            print(name, *brought, flush=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.split("\n")[:-1] == _modules(), told.stderr


@pytest.mark.parametrize("light", ["equipoise", "equipoise.cli", "equipoise.config", "equipoise.journal"])
def test_the_front_door_needs_none_of_the_libraries(light):
    script = f"import sys, {light}; print([heavy for heavy in {(*HEAVY, 'numpy', 'scipy')!r} if heavy in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == "[]\n"


def test_help_answers_at_once():
    """By processor time, best of five: on a busy machine the wall clock tells of the neighbours."""
    needed = []
    for _ in range(5):
        before = os.times()
        command = [sys.executable, "-m", "equipoise.cli", "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        after = os.times()  # user and system time of children at 2 and 3
        needed.append(sum(after[2:4]) - sum(before[2:4]))
    assert "demo" in shown
    assert min(needed) < 0.3


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/**/__init__.py")), ids=lambda path: path.parent.name)
def test_the_init_of_a_sub_package_is_a_docstring(path):
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    assert len(statements) == 1
    assert ast.get_docstring(ast.Module(statements, []))


@pytest.mark.parametrize("name", sorted(set(equipoise.__all__) - {"__version__"}))
def test_every_public_name_is_there(name):
    assert name in dir(equipoise)
    assert getattr(equipoise, name) is not None


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = equipoise.nothing_like_it
