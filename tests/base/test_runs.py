"""A run directory holds one run: what it was started with is written down, and nothing else may go on in it."""

import errno
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from equipoise import console, disk
from equipoise.config import Section
from equipoise.errors import UserError
from equipoise.runs import SCHEMA_VERSION, Run


class Settings(Section):
    name: str = "x"
    epochs: int = 3
    learning_rate: float = 1e-5
    arms: dict[str, int] = Field(default={})


DATA = {"updates": "abc", "keep": "def"}


def start(path: Path, config: Section | None = None, data: dict[str, str] = DATA) -> Run:
    return Run.open_or_create(path, config or Settings(), data_hashes=data, seed=42, device="cpu")


def change_manifest(path: Path, **values: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_manifest_says_with_what_a_run_was_made(tmp_path):
    manifest = start(tmp_path / "run").manifest
    assert manifest["schema_version"] == SCHEMA_VERSION
    assert (manifest["seed"], manifest["device"], manifest["data"]) == (42, "cpu", DATA)
    assert manifest["python"] == platform.python_version()
    for name in ("torch", "transformers", "trl", "peft", "equipoise"):
        assert manifest["versions"][name] == importlib.metadata.version(name)
    assert manifest == json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))


def test_the_config_is_written_resolved(tmp_path):
    start(tmp_path / "run", Settings(epochs=5, arms={"no": 1}))
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert written == {"name": "x", "epochs": 5, "learning_rate": 1e-5, "arms": {"no": 1}}


@pytest.mark.parametrize("checkout", [True, False])
def test_the_commit_is_named_where_there_is_one(tmp_path, monkeypatch, checkout):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    commit = None
    if checkout:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "init", "-q"], check=True)
        subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert start(tmp_path / "run").manifest["commit"] == commit


def test_the_same_run_is_opened_again_unchanged(tmp_path):
    start(tmp_path / "run")
    before = contents(tmp_path / "run")
    assert start(tmp_path / "run").manifest == Run.open(tmp_path / "run").manifest
    assert contents(tmp_path / "run") == before


# ---- bad input 58: config or data changed between start and resume


@pytest.mark.parametrize(
    ("config", "data", "told"),
    [
        (Settings(epochs=4), DATA, "epochs (was 3, is 4)"),
        (Settings(learning_rate=2e-5), DATA, "learning_rate (was 1e-05, is 2e-05)"),
        (Settings(arms={"sft": 1}), DATA, "arms.sft (was None, is 1)"),
        (Settings(), DATA | {"keep": "other"}, "the data of keep"),
        (Settings(), {"updates": "abc"}, "the data of keep"),
        (Settings(), DATA | {"skills": "new"}, "the data of skills"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_and_named(tmp_path, config, data, told):
    start(tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        start(tmp_path / "run", config, data)
    assert told in caught.value.what
    assert "--out" in (caught.value.fix or "")
    assert contents(tmp_path / "run") == before


def test_a_setting_that_a_newer_version_added_does_not_change_an_old_run(tmp_path):
    class Newer(Settings):
        added: int = 1

    start(tmp_path / "run")
    assert start(tmp_path / "run", Newer()).manifest["seed"] == 42
    with pytest.raises(UserError, match=r"added \(was 1, is 2\)"):
        start(tmp_path / "run", Newer(added=2))


# ---- bad input 57: a newer schema; and folders that hold no run


def test_a_run_of_a_newer_version_is_refused(tmp_path):
    start(tmp_path / "run")
    change_manifest(tmp_path / "run", schema_version=SCHEMA_VERSION + 1)
    for again in (Run.open, start):
        with pytest.raises(UserError, match="newer version") as caught:
            again(tmp_path / "run")
        assert "pip install -U equipoise" in (caught.value.fix or "")


def test_other_versions_of_libraries_are_told_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    start(tmp_path / "run")
    change_manifest(tmp_path / "run", versions={"torch": "0.1"})
    for _ in range(2):
        start(tmp_path / "run")
    assert capsys.readouterr().err.count("torch was 0.1") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": null}'])
def test_a_damaged_manifest_is_no_reason_to_start_over(tmp_path, text):
    start(tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        start(tmp_path / "run")
    assert (tmp_path / "run" / "manifest.json").read_text() == text


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        start(tmp_path)
    assert contents(tmp_path) == {"thesis.tex": b"mine"}
    with pytest.raises(UserError, match=r"(?s)no run directory.*give the folder"):
        Run.open(tmp_path)
    with pytest.raises(UserError):
        start(tmp_path / "thesis.tex" / "run")


def test_a_start_that_was_cut_off_can_be_started_again(tmp_path, monkeypatch):
    class Fails(disk.System):
        def __init__(self, at: int):
            self.left = at

        def replace(self, source, target):
            self.left -= 1
            if not self.left:
                raise OSError(errno.ENOSPC, "injected")
            super().replace(source, target)

    for at in (1, 2):
        path = tmp_path / str(at)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "system", Fails(at))
            with pytest.raises(UserError, match="No space left"):
                start(path)
        assert start(path).manifest["seed"] == 42


# ---- bad input 60: a read-only folder


def test_a_read_only_disk_is_told_with_what_to_do(tmp_path, monkeypatch):
    class ReadOnly(disk.System):
        def write(self, file, data):
            raise OSError(errno.EROFS, "injected")

    monkeypatch.setattr(disk, "system", ReadOnly())
    with pytest.raises(UserError, match="Read-only file system") as caught:
        start(tmp_path / "run")
    assert "--out" in (caught.value.fix or "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_one_may_not_write_to_or_look_into(mode):
    code = (
        "import os, sys\nfrom equipoise.config import Section\nfrom equipoise.errors import UserError\n"
        "from equipoise.runs import Run\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"  # root may write anywhere
        "try: Run.open_or_create(sys.argv[1], Section(), data_hashes={}, seed=1, device='cpu')\n"
        "except UserError as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
        Path(folder).chmod(0o755)
    assert "Permission denied" in done.stdout, done.stderr
    assert "what to do" in done.stdout


# ---- bad input 48: names that lead out of the folder


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "/etc",
        "a\\b",
        "a..b",
        "a\0b",
        "a\nb",
        " a",
        "-rf",
        ".hidden",
        "con",
        "NUL.txt",
        "x" * 200,
    ],
)
def test_a_name_that_is_no_plain_name_is_refused(name):
    with pytest.raises(UserError) as caught:
        Run.named(Path("runs"), name)
    assert "--out" in (caught.value.fix or "")


@pytest.mark.parametrize("name", ["demo", "protocol-a", "v1.2_x", "été", "7"])
def test_a_plain_name_is_a_folder_below_the_root(name):
    assert Run.named(Path("runs"), name) == Path("runs") / name


def test_a_journal_of_the_run_is_its_own(tmp_path):
    run = start(tmp_path / "run")
    with run.journal("cells.jsonl", key=lambda row: row["cell"]) as journal:
        journal.append({"cell": "a"})
    with run.journal("cells.jsonl") as journal:
        assert journal.rows == [{"cell": "a"}]


def test_what_a_recipe_says_of_itself_is_no_other_run(tmp_path):
    class Described(Settings):
        description: str = ""

    start(tmp_path / "run", Described(description="as it was called once"))
    assert start(tmp_path / "run", Described(description="a better word")).path == tmp_path / "run"
