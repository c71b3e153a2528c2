"""The system calls that durability rests on, and what their errors mean to a user."""

import ctypes
import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from equipoise.errors import UserError

NO_SPACE = 2**20  # bytes
DOCS = "docs/troubleshooting.md#disk"


def fits_a_folder(name: str) -> bool:
    """Tell whether a folder can be called so on every system."""
    fits = re.fullmatch(r'[^\\/<>:"|?*\x00-\x1f]{1,100}', name) is not None
    return fits and name[0] not in ". " and name[-1] not in ". "


class System:
    """The few system calls that durability rests on; a test puts one in that fails."""

    def write(self, file: BinaryIO, data: bytes) -> None:
        left = memoryview(data)
        while left:  # an unbuffered file may take only a part
            left = left[file.write(left) :]

    def fsync(self, file: BinaryIO) -> None:
        if sys.platform == "darwin":
            import fcntl

            with suppress(OSError):  # not every file system knows it; fsync alone leaves the drive's own cache
                fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
                return
        os.fsync(file.fileno())

    def truncate(self, file: BinaryIO, size: int) -> None:
        file.truncate(size)

    def replace(self, source: Path, target: Path) -> None:
        for pause in (0.01, 0.05, 0.2, 0.5) if os.name == "nt" else ():
            try:
                source.replace(target)
                return
            except PermissionError:  # a virus scanner or an indexer looks at the file for a moment
                time.sleep(pause)
        source.replace(target)

    def exchange(self, one: Path, two: Path) -> bool:
        """Swap two folders in one step; False where the system cannot."""
        function, flag = ("renameat2", 2) if sys.platform == "linux" else ("renameatx_np", 2)
        try:
            rename = getattr(ctypes.CDLL(None), function)
        except (AttributeError, OSError, TypeError):
            return False
        here = -100 if sys.platform == "linux" else -2  # AT_FDCWD
        return rename(here, os.fsencode(one), here, os.fsencode(two), flag) == 0

    def sync_folder(self, folder: Path) -> None:
        """Make a rename durable. Windows has no such call, and needs none."""
        if os.name == "nt":
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot
                raise
        finally:
            os.close(handle)


system: System = System()

_FULL = "free some space and run the same command again; what was acknowledged is kept"
_DENIED = "choose a folder that can be written to, with --out"
_ELSEWHERE = "something else is in the way there; choose another folder with --out"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or choose another file system with --out",
    errno.EROFS: _DENIED,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EISDIR: _ELSEWHERE,
    errno.EEXIST: _ELSEWHERE,
    errno.ENAMETOOLONG: "give the run a shorter name, with --out",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into a UserError that says what to do."""
    try:
        yield
    except Exception as error:
        number = _errno(error, path.parent)
        if number not in _ADVICE:
            raise
        raise UserError(
            f"cannot write: {os.strerror(number)}", where=str(path), fix=_ADVICE[number], docs=DOCS
        ) from error


def _errno(error: Exception, folder: Path) -> int:
    """The system's number for an error; libraries written in Rust only say it in words, and torch not at all."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found:
        return int(found[1])
    full = isinstance(error, RuntimeError) and folder.is_dir() and shutil.disk_usage(folder).free < NO_SPACE
    return errno.ENOSPC if full else 0


def make_folder(path: Path | str) -> None:
    """Make a folder and those above it, durably; one that is there is left alone."""
    path = Path(path)
    with explained(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(missing):
            system.sync_folder(folder.parent)
