"""A writer to be killed: imports everything, then says `ready`, then one number for every write that was acknowledged.

KIND FOLDER are the arguments; KIND is small, large, pieces (large rows in many small writes), folder or file.
"""

import itertools
import sys
from pathlib import Path

from equipoise import disk
from equipoise.journal import Journal, atomic_directory, verify_directory, write_atomic

LARGE = 300_000


class InPieces(disk.System):
    """Takes 4 KiB at a time, as a slow disk may, so that a kill finds half-written rows."""

    def write(self, file, data):
        for start in range(0, len(data), 4096):
            super().write(file, data[start : start + 4096])


def acknowledge(number: int) -> None:
    print(number, flush=True)


def append_rows(path: Path, size: int) -> None:
    with Journal(path, key=lambda row: row["id"]) as journal:
        for number in itertools.count(len(journal.rows)):
            journal.append({"id": number, "text": chr(97 + number % 26) * size})
            acknowledge(number)


def replace_folder(path: Path) -> None:
    start = int((path / "a").read_text().split()[0]) if path.exists() else 0
    for number in itertools.count(start + 1):
        with atomic_directory(path) as folder:
            (folder / "below").mkdir()
            for name in ("a", "b", "below/c"):
                (folder / name).write_text(f"{number} " * 2000)
        assert verify_directory(path) == []
        acknowledge(number)


def replace_file(path: Path) -> None:
    start = int(path.read_text().split()[0]) if path.exists() else 0
    for number in itertools.count(start + 1):
        write_atomic(path, f"{number} " * 20_000)
        acknowledge(number)


if __name__ == "__main__":
    kind, folder = sys.argv[1], Path(sys.argv[2])
    print("ready", flush=True)
    if kind == "folder":
        replace_folder(folder / "version")
    elif kind == "file":
        replace_file(folder / "version")
    else:
        disk.system = InPieces() if kind == "pieces" else disk.system
        append_rows(folder / "rows.jsonl", 5 if kind == "small" else LARGE)
