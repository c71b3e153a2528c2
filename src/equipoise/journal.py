"""Durable files: whole files and folders that appear complete or not at all, and journals that only grow."""

import base64
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from equipoise import disk
from equipoise.disk import explained, make_folder
from equipoise.errors import UserError

MANIFEST = "MANIFEST.json"
SCHEMA_VERSION = 1


# ---- whole files


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Replace a file by `data`: a reader, or a crash, sees the old content or the new, never a part.

    Folders above it are made.

    Raises:
        UserError: the disk is full or the folder is read-only; the old file is untouched.
    """
    path = Path(path)
    with explained(path):
        make_folder(path.parent)
        temporary = _temporary(path)
        try:
            with temporary.open("xb", buffering=0) as file:
                disk.system.write(file, data.encode("utf-8") if isinstance(data, str) else data)
                disk.system.fsync(file)
            disk.system.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        disk.system.sync_folder(path.parent)


def _temporary(path: Path) -> Path:
    """A name beside `path` that tells whose it is; what dead processes of this machine left there is removed."""
    start, host = f".{path.name}.", re.sub(r"[^\w-]", "_", socket.gethostname())
    for other in path.parent.iterdir():
        mark = re.fullmatch(re.escape(f"{start}{host}") + r"\.(\d+)\.[0-9a-f]{8}\.tmp", other.name)
        if mark and not _alive(int(mark[1])):
            _remove(other)
    return path.with_name(f"{start}{host}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there, so nothing is taken for dead
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused."""
    write_atomic(path, _utf8(lambda ascii_only: json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False)))


def write_jsonl(path: Path | str, rows: Iterable[dict[str, Any]]) -> None:
    """Write all `rows` as one JSONL file, atomically."""
    write_atomic(path, b"".join(_line(row) for row in rows))


def _line(row: dict[str, Any]) -> bytes:
    return _utf8(lambda ascii_only: json.dumps(row, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":")))


def _utf8(dump: Callable[[bool], str]) -> bytes:
    """Encode JSON with a newline; a lone surrogate, which UTF-8 has no bytes for, is written as an escape."""
    try:
        return dump(False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return dump(True).encode("ascii") + b"\n"


# ---- whole folders


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on leaving, sync every file, write the manifest last, and rename.

    A folder that stands at `path` is replaced in one step where the system can swap two (Linux, macOS); elsewhere it
    is set aside, and put back if need be. If the body raises, nothing at `path` changes.

    Raises:
        UserError: the disk is full or the folder is read-only; what stood at `path` is untouched.
    """
    path = Path(path)
    with explained(path):
        make_folder(path.parent)
        _put_back(path)
        shutil.rmtree(_aside(path), ignore_errors=True)
        if path.exists() and not path.is_dir():
            raise FileExistsError(errno.EEXIST, "a file is in the way", str(path))
        temporary = _temporary(path)
        temporary.mkdir()
        try:
            with explained(path):  # before what fills the disk is removed
                yield temporary
            _seal(temporary)
            _install(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _seal(folder: Path) -> None:
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        with file.open("rb+" if os.name == "nt" else "rb") as opened:  # Windows flushes only what may be written to
            disk.system.fsync(opened)
        files[file.relative_to(folder).as_posix()] = {"size": file.stat().st_size, "sha256": digest}
    for below in (p for p in folder.rglob("*") if p.is_dir()):
        disk.system.sync_folder(below)
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, "files": files})


def _install(temporary: Path, path: Path) -> None:
    if path.exists() and disk.system.exchange(temporary, path):
        disk.system.sync_folder(path.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        return
    aside = _aside(path)
    if path.exists():
        disk.system.replace(path, aside)
    try:
        disk.system.replace(temporary, path)
    except OSError:
        _put_back(path)
        raise
    disk.system.sync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _put_back(path: Path) -> None:
    """Undo a replacement that was cut off between its two renames."""
    if _aside(path).exists() and not path.exists():
        _aside(path).replace(path)


def verify_directory(path: Path | str) -> list[str]:
    """List what is wrong with a folder written by `atomic_directory`; an empty list means that it is whole.

    Raises:
        UserError: a newer version wrote it.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        schema, files = int(manifest["schema_version"]), dict(manifest["files"])
        expected = {name: (int(file["size"]), str(file["sha256"])) for name, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return [f"{MANIFEST} cannot be read ({type(error).__name__}: {error})"]
    if schema > SCHEMA_VERSION:
        raise UserError(
            f"a newer version of Equipoise wrote this folder (schema {schema})",
            where=str(path / MANIFEST),
            fix="upgrade with `pip install -U equipoise`",
        )
    found = (_problem(path / name, name, size, digest) for name, (size, digest) in expected.items())
    return [problem for problem in found if problem]


def _problem(file: Path, name: str, size: int, digest: str) -> str | None:
    if not file.is_file():
        return f"{name} is missing"
    if file.stat().st_size != size:
        return f"{name} has {file.stat().st_size} bytes instead of {size}"
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
            return f"{name} has another content than was written"
    return None


def newest_valid(paths: Iterable[Path]) -> Path | None:
    """Return the first folder of `paths` (newest first) that is whole. Raises as `verify_directory` does."""
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
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


class Journal:
    """An append-only JSONL file with one writer. `append` returns when the row is on disk.

    On opening, under the lock, a torn last line is moved to `NAME.torn-N` and damaged lines are moved to
    `NAME.quarantine.jsonl`; nothing is deleted. `rows` holds what a reader of the file would see.

    Args:
        path: the file; its lock is `NAME.lock`.
        key: what must not stand twice; appending a row whose key is there already is an error.

    Raises:
        UserError: another process has the journal open, or the disk is full or read-only.
    """

    def __init__(self, path: Path | str, *, key: Callable[[dict[str, Any]], Hashable] | None = None):
        self.path, self.key = Path(path), key
        self.rows: list[dict[str, Any]] = []
        self._lock = FileLock(f"{self.path}.lock", thread_local=False)
        self._owner = self.path.with_name(self.path.name + ".owner")
        self._file: BinaryIO | None = None
        self._size, self._unfinished = 0, False
        self._keys: set[Hashable] = set()
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> "Journal":
        with explained(self.path):
            make_folder(self.path.parent)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise self._held() from None
            try:
                self._open()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        with suppress(OSError):  # without a holder of the lock it means nothing
            self._owner.unlink()
        self._lock.release()

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; it is on disk when this returns. If that fails, the row is not in the journal.

        Raises:
            UserError: the row's key is in the journal already, or the disk is full.
            ValueError: the row holds NaN or infinity.
        """
        self.extend([row])

    def extend(self, rows: Iterable[dict[str, Any]], *, wait: bool = True) -> None:
        """Add rows as `append` does one, waiting for the disk once; if that fails, none of them is in the journal.

        A process that dies meanwhile may leave the first of them. Without `wait` they outlive the process at once, and
        a loss of power after `sync`.
        """
        lines = [_line(row) for row in rows]
        with self._one_at_a_time:
            self._extend(lines, [json.loads(line) for line in lines], wait)

    def sync(self) -> None:
        """Wait until all rows are on disk; another thread may add some meanwhile. Raises as `append`."""
        if self._file is not None:
            with explained(self.path):
                disk.system.fsync(self._file)

    def _extend(self, lines: list[bytes], rows: list[dict[str, Any]], wait: bool) -> None:
        if (file := self._file) is None:
            raise RuntimeError("the journal is not open; use it as a context manager")
        keys = [self.key(row) for row in rows] if self.key else []
        twice = next((key for i, key in enumerate(keys) if key in self._keys or key in keys[:i]), None)
        if twice is not None:
            raise UserError(f"{twice!r} is in the journal already", where=str(self.path))
        data = b"".join(lines)
        with explained(self.path):
            if self._unfinished:
                self._take_back(file)
            self._unfinished = True
            try:
                disk.system.write(file, data)
                if wait:
                    disk.system.fsync(file)
            except BaseException:
                with suppress(OSError):  # if this fails too, the next append or the next writer does it
                    self._take_back(file)
                raise
            self._size += len(data)
            self._unfinished = False
        self.rows += rows
        self._keys.update(keys)

    def _take_back(self, file: BinaryIO) -> None:
        """Remove what a failed write may have left behind the last acknowledged row."""
        disk.system.truncate(file, self._size)
        disk.system.fsync(file)
        self._unfinished = False

    def _open(self) -> None:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(self._owner, owner)
        self._set_torn_tail_aside()
        self._quarantine()
        self.rows = read_journal(self.path).rows
        self._keys = {self.key(row) for row in self.rows} if self.key else set()
        self._file = self.path.open("ab", buffering=0)
        self._size, self._unfinished = self.path.stat().st_size, False
        disk.system.sync_folder(self.path.parent)

    def _set_torn_tail_aside(self) -> None:
        whole, newline, tail = (self.path.read_bytes() if self.path.exists() else b"").rpartition(b"\n")
        if not tail:
            return
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.torn-{number}")).exists() and aside.read_bytes() != tail:
            number += 1
        write_atomic(aside, tail)
        with self.path.open("rb+") as file:
            disk.system.truncate(file, len(whole) + len(newline))
            disk.system.fsync(file)

    def _quarantine(self) -> None:
        """Move damaged lines away, their exact bytes in base64; first they are safe there, then they leave."""
        damaged = dict(read_journal(self.path).damaged)
        if not damaged:
            return
        aside = self.path.with_name(f"{self.path.name}.quarantine.jsonl")
        moved = [
            {"line": n, "text": line.decode("utf-8", "backslashreplace"), "base64": base64.b64encode(line).decode()}
            for n, line in damaged.items()
        ]
        before = aside.read_bytes() if aside.exists() else b""
        write_atomic(aside, before + b"".join(_line(row) for row in moved))
        lines = self.path.read_bytes().split(b"\n")
        write_atomic(self.path, b"\n".join(line for n, line in enumerate(lines, 1) if n not in damaged))

    def _held(self) -> UserError:
        try:
            who = "process {pid} on {host} since {since}".format(**json.loads(self._owner.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return UserError(f"{who} is writing this journal", where=str(self.path), fix="wait for it to end, or stop it")
