"""Durable files: whole files and folders that appear complete or not at all, and append-only journals with one writer."""

import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from equipoise.errors import UserError

MANIFEST = "MANIFEST.json"
SCHEMA_VERSION = 1


class System:
    """The few system calls that durability rests on; a test puts one in that fails."""

    @staticmethod
    def write(file: BinaryIO, data: bytes) -> None:
        left = memoryview(data)
        while left:  # an unbuffered file may take only a part
            left = left[file.write(left) :]
        file.flush()

    @staticmethod
    def fsync(file: BinaryIO) -> None:
        os.fsync(file.fileno())

    @staticmethod
    def replace(source: Path, target: Path) -> None:
        source.replace(target)

    @staticmethod
    def sync_folder(folder: Path) -> None:
        """Make a rename durable. Windows has no such call, and needs none."""
        if os.name == "nt":
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


system: System = System()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into one that says what to do."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space and run the same command again; what was acknowledged is kept",
            errno.EDQUOT: "free some of your quota and run the same command again; what was acknowledged is kept",
            errno.EROFS: "choose a folder that can be written to, with --out",
            errno.EACCES: "choose a folder that you may write to, with --out",
            errno.EPERM: "choose a folder that you may write to, with --out",
        }.get(error.errno or 0)
        if advice is None:
            raise
        raise UserError(f"cannot write: {os.strerror(error.errno or 0)}", where=str(path), fix=advice) from error


# ---- whole files


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Replace a file by `data`: a reader, or a crash, sees the old content or the new, never a part.

    Raises:
        UserError: the disk is full or the folder is read-only; the old file is untouched.
    """
    path = Path(path)
    with _explained(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                system.write(file, data.encode("utf-8") if isinstance(data, str) else data)
                system.fsync(file)
            temporary.chmod(0o666 & ~_umask())
            system.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        system.sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path | str, rows: Iterable[dict[str, Any]]) -> None:
    """Write all `rows` as one JSONL file, atomically."""
    write_atomic(path, b"".join(_line(row) for row in rows))


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8") + b"\n"


# ---- whole folders


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on leaving, sync every file, write the manifest last, and rename.

    A folder that stands at `path` is set aside first and removed only when the new one is in place. If the body
    raises, nothing at `path` changes.
    """
    path = Path(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            yield temporary
            _seal(temporary)
            _install(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _seal(folder: Path) -> None:
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        with file.open("rb+") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            system.fsync(opened)
        files[file.relative_to(folder).as_posix()] = {"size": file.stat().st_size, "sha256": digest}
    for below in (p for p in folder.rglob("*") if p.is_dir()):
        system.sync_folder(below)
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, "files": files})
    folder.chmod(0o777 & ~_umask())


def _install(temporary: Path, path: Path) -> None:
    aside = path.with_name(f".{path.name}.replaced")
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        system.replace(path, aside)
    try:
        system.replace(temporary, path)
    except OSError:
        if aside.exists() and not path.exists():
            aside.replace(path)
        raise
    system.sync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def verify_directory(path: Path | str) -> list[str]:
    """List what is wrong with a folder written by `atomic_directory`; an empty list means that it is whole."""
    path = Path(path)
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{MANIFEST}: {error!r}"]
    problems = []
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != expected["size"]:
            problems.append(f"{name} has {file.stat().st_size} bytes instead of {expected['size']}")
        else:
            with file.open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != expected["sha256"]:
                    problems.append(f"{name} has another content than was written")
    return problems


def newest_valid(paths: Iterable[Path]) -> Path | None:
    """Return the first folder of `paths` (newest first) that is whole."""
    return next((path for path in paths if not verify_directory(path)), None)


# ---- journals


@dataclass(frozen=True)
class JournalRead:
    """The rows of a journal, and how many lines were no rows: `torn` at the end, `damaged` before it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    torn: int = 0
    damaged: list[tuple[int, bytes]] = field(default_factory=list)


def read_journal(path: Path | str) -> JournalRead:
    """Read a journal without changing it; a missing file has no rows. Lines end in a newline and nowhere else."""
    path = Path(path)
    if not path.exists():
        return JournalRead()
    *lines, tail = path.read_bytes().split(b"\n")
    rows, damaged = [], []
    for number, line in enumerate(lines, 1):
        row = _parsed(line)
        if row is None:
            damaged.append((number, line))
        else:
            rows.append(row)
    return JournalRead(rows, int(bool(tail)), damaged)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


class Journal:
    """An append-only JSONL file with one writer. `append` returns when the row is on disk.

    On opening, under the lock, a torn last line is moved to `NAME.torn-N` and damaged lines are copied to
    `NAME.quarantine.jsonl`; they stay out of `rows`, and nothing is deleted.

    Args:
        path: the file; its lock is `NAME.lock`.
        key: what must not stand twice; appending a row whose key is there already is an error.

    Raises:
        UserError: another process has the journal open, or the disk is full or read-only.
    """

    def __init__(self, path: Path | str, *, key: Callable[[dict[str, Any]], Hashable] | None = None):
        self.path, self.key = Path(path), key
        self.rows: list[dict[str, Any]] = []
        self._lock = FileLock(f"{self.path}.lock")
        self._owner = self.path.with_name(self.path.name + ".owner")
        self._file: BinaryIO | None = None

    def __enter__(self) -> "Journal":
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise self._held() from None
            try:
                self._open()
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._owner.unlink(missing_ok=True)
        self._lock.release()

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; it is on disk when this returns. If it fails, the file is as it was before.

        Raises:
            UserError: the row's key is in the journal already, or the disk is full.
        """
        if self._file is None:
            raise RuntimeError("the journal is not open; use it as a context manager")
        key = self.key(row) if self.key else None
        if self.key and key in self._keys:
            raise UserError(f"{key!r} is in the journal already", where=str(self.path))
        line, before = _line(row), self._size
        with _explained(self.path):
            try:
                system.write(self._file, line)
                system.fsync(self._file)
            except BaseException:
                self._file = self._reopened(before)
                raise
        self._size += len(line)
        self.rows.append(row)
        self._keys.add(key)

    def _open(self) -> None:
        write_json(
            self._owner, {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        )
        self._set_torn_tail_aside()
        read = read_journal(self.path)
        self._quarantine(read.damaged)
        self.rows = read.rows
        self._keys: set[Hashable] = {self.key(row) for row in self.rows} if self.key else set()
        self._file = self.path.open("ab", buffering=0)
        self._size = self.path.stat().st_size
        system.sync_folder(self.path.parent)

    def _set_torn_tail_aside(self) -> None:
        if not self.path.exists():
            return
        whole, newline, tail = self.path.read_bytes().rpartition(b"\n")
        if not tail:
            return
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.torn-{number}")).exists():
            number += 1
        write_atomic(aside, tail)
        with self.path.open("rb+") as file:
            file.truncate(len(whole) + len(newline))
            system.fsync(file)

    def _quarantine(self, damaged: list[tuple[int, bytes]]) -> None:
        if not damaged:
            return
        path = self.path.with_name(f"{self.path.name}.quarantine.jsonl")
        rows = [{"line": number, "bytes": line.decode("utf-8", "backslashreplace")} for number, line in damaged]
        write_jsonl(path, rows)

    def _reopened(self, size: int) -> BinaryIO:
        """Take back the part of a row that a failed write may have left."""
        if self._file is not None:
            self._file.close()
        with self.path.open("rb+") as file:
            file.truncate(size)
        return self.path.open("ab", buffering=0)

    def _held(self) -> UserError:
        try:
            owner = json.loads(self._owner.read_text(encoding="utf-8"))
            who = f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        return UserError(f"{who} is writing this journal", where=str(self.path), fix="wait for it to end, or stop it")
