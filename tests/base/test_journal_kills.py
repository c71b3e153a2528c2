"""A writer killed at any moment loses no acknowledged row, doubles none, and the next writer goes on."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equipoise.journal import Journal, read_journal, verify_directory

WRITER = Path(__file__).with_name("killable_writer.py")


class Killer:
    """Kills writers at random moments of their first milliseconds; of more of them if one was too slow."""

    def __init__(self, kind: str, folder: Path):
        self.kind, self.folder, self.longest = kind, folder, 0.05

    def kill_one(self) -> list[int]:
        """Start a writer, kill it while it writes, and return the numbers that it acknowledged."""
        command = [sys.executable, str(WRITER), self.kind, str(self.folder)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(random.uniform(0, self.longest))
        assert writer.poll() is None, "the writer ended by itself"
        writer.kill()
        out, err = writer.communicate()
        assert err == b""
        acknowledged = [int(line) for line in out.split(b"\n")[:-1]]
        self.longest = max(0.02, self.longest * (0.9 if acknowledged else 1.3))
        return acknowledged


def check_journal(kind: str, folder: Path, kills: int) -> None:
    killer = Killer(kind, folder)
    acknowledged: list[int] = []
    tears: set[bytes] = set()
    for _ in range(kills):
        acknowledged += killer.kill_one()
        read = read_journal(folder / "rows.jsonl")
        ids = [row["id"] for row in read.rows]
        assert ids == list(range(len(ids))), "a row is lost, doubled or out of order"
        assert set(acknowledged) <= set(ids), "an acknowledged row is lost"
        assert all(set(row["text"]) == {chr(97 + row["id"] % 26)} for row in read.rows)
        assert read.damaged == []
        file = folder / "rows.jsonl"
        tail = file.read_bytes().rpartition(b"\n")[2] if file.exists() else b""
        assert read.torn == bool(tail)
        tears |= {tail} - {b""}
    assert acknowledged, "the writers were killed before their first row; the test saw nothing"
    assert len(set(acknowledged)) == len(acknowledged)
    with Journal(folder / "rows.jsonl") as journal:
        assert [row["id"] for row in journal.rows] == ids
    assert tears <= {file.read_bytes() for file in folder.glob("rows.jsonl.torn-*")}, "a torn row was thrown away"


@pytest.mark.parametrize(("kind", "kills"), [("small", 10), ("pieces", 10)])
def test_no_acknowledged_row_is_lost_or_doubled(kind, kills, tmp_path):
    check_journal(kind, tmp_path, kills)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["small", "large", "pieces"])
def test_no_acknowledged_row_is_lost_or_doubled_in_200_kills(kind, tmp_path):
    for series in range(10):  # a journal that grows without end makes its writers slow to open
        folder = tmp_path / str(series)
        folder.mkdir()
        check_journal(kind, folder, 20)


def check_versions(kind: str, folder: Path, kills: int) -> None:
    last, killer = 0, Killer(kind, folder)
    for _ in range(kills):
        acknowledged = killer.kill_one()
        last = max([last, *acknowledged])
        version = folder / "version"
        if not version.exists():
            assert last == 0
            continue
        files = [version] if kind == "file" else [version / name for name in ("a", "b", "below/c")]
        numbers = {word for file in files for word in file.read_text().split()}
        assert len(numbers) == 1, "parts of two versions stand together"
        assert int(numbers.pop()) >= last
        assert kind == "file" or verify_directory(version) == []
    assert last > 0
    assert len(list(folder.iterdir())) <= 2, "what killed writers leave behind piles up"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_replaced_file_or_folder_is_the_old_or_the_new(kind, tmp_path):
    check_versions(kind, tmp_path, 8)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_replaced_file_or_folder_is_the_old_or_the_new_in_200_kills(kind, tmp_path):
    check_versions(kind, tmp_path, 200)
