"""GGUF files: read by transformers, dequantised, and kept as a plain safetensors folder in a cache."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.console import progress, say
from equipoise.errors import UserError
from equipoise.journal import MANIFEST, atomic_directory, verify_directory, write_json
from equipoise.models import files, gguf_header
from equipoise.models.quiet import quiet

if TYPE_CHECKING:
    import torch

HOME = "EQUIPOISE_MODELS"
FORM = 1  # of what a conversion writes: a new form makes a new folder
SPARE = 2**30  # bytes that a conversion leaves free


def is_gguf(path: str) -> bool:
    """Tell whether a model path names a GGUF file."""
    return Path(path).suffix.lower() == ".gguf"


def home() -> Path:
    """The folder of fetched and converted models: $EQUIPOISE_MODELS, else one in the user's cache."""
    return Path(os.environ.get(HOME) or "~/.cache/equipoise/models").expanduser()


def folder_of(file: Path, *, sha256: str | None = None) -> Path:
    """The safetensors folder of a GGUF file: from the cache if it is there whole, else converted now.

    The weights are kept as the file has them where it holds 32- or 16-bit numbers, and in bf16 where it is quantised.

    Args:
        sha256: of the file, if it is known already; then the file is needed only for the conversion.

    Raises:
        UserError: the file is damaged, of a kind that transformers does not read, or there is no room for the folder.
    """
    digest = sha256 or _digest(file)
    found = cached(digest)
    if found is not None:
        return found
    from filelock import FileLock

    check_home()
    target = _place(digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # other processes of the same run wait for the one that converts
        if cached(digest) is None:
            _convert(file, target)
    return target


def cached(digest: str) -> Path | None:
    """The converted folder of the file with this sha256, or None if it is not there or damaged."""
    folder = _place(digest)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return None
    written = manifest.stat().st_mtime_ns
    try:
        files.check_safetensors(folder, "model")
        changed = any(path.stat().st_mtime_ns > written for path in folder.iterdir())
    except (UserError, OSError):
        return None
    if changed and verify_directory(folder):  # sums take seconds, and only a file that was touched can differ
        return None
    return folder


def licence(file: Path) -> str | None:
    """The licence that a GGUF file states, or None."""
    try:
        stated = gguf_header.read(file).metadata.get("general.license")
    except (ValueError, OSError):
        return None
    return stated if isinstance(stated, str) else None


def check_home() -> None:
    """Refuse a models folder that cannot be written to.

    Raises:
        UserError: it belongs to someone else, lies on a read-only disk, or a file is in the way.
    """
    folder = next(place for place in (home(), *home().parents) if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(
            "the models folder cannot be written to", where=str(folder), fix=f"set {HOME} to a folder that can be"
        )


def check_space(name: str, size: int) -> None:
    """Refuse work that would fill the disk of the models folder.

    Raises:
        UserError: fewer than `size` bytes and some to spare are free.
    """
    folder = next(place for place in (home(), *home().parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise UserError(
            f"{name} needs {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            where=str(folder),
            fix=f"free some space, or set {HOME} to a folder on a larger disk",
            docs="docs/troubleshooting.md#disk",
        )


def _place(digest: str) -> Path:
    return home() / "converted" / f"{digest}.{FORM}"


def _digest(file: Path) -> str:
    """The sha256 of a file, remembered for as long as its size and time of change stay."""
    here = file.resolve()
    stat = here.stat()
    key = hashlib.sha256(os.fsencode(here)).hexdigest()[:32]
    note = home() / "converted" / "sums" / f"{key}.json"
    known = {"size": stat.st_size, "changed": stat.st_mtime_ns}
    if note.is_file():
        noted = files.read_json(note)
        if known.items() <= noted.items():
            return str(noted["sha256"])
    with here.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    check_home()
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {**known, "sha256": digest})
    return digest


def _header(file: Path) -> gguf_header.Header:
    """The header of a GGUF file, after a check that all it lists is there.

    Raises:
        UserError: it is no GGUF file, cut short, or holds tensors of an unknown kind.
    """
    try:
        header = gguf_header.read(file)
    except ValueError as error:
        raise _unreadable(file, error) from error
    size = file.stat().st_size
    if header.size > size:
        raise UserError(
            f"damaged GGUF file: {size} bytes where its header promises {header.size}",
            where=f"model.path: {file}",
            fix="download or copy the file again",
        )
    return header


def _stored(header: gguf_header.Header) -> torch.dtype:
    """The format that keeps what the file holds, bf16 for what is quantised."""
    import torch

    plain = {frozenset({"F32"}): torch.float32, frozenset({"F16"}): torch.float16}
    return plain.get(header.kinds, torch.bfloat16)


def _unreadable(file: Path, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    words = str(error).strip().splitlines()
    detail = words[0].replace(f"{file} ", "") if words else type(error).__name__
    return UserError(
        f"the GGUF file cannot be read: {detail}",
        where=f"model.path: {file}",
        fix="download the file again; if it is whole, this version of transformers does not read its architecture: "
        "use the model's safetensors folder",
        docs="docs/models.md#gguf",
    )


def _convert(file: Path, target: Path) -> None:
    say(f"converting {file.name} once; reading its table of contents ...")
    header = _header(file)
    dtype = _stored(header)
    check_space(f"converting {file.name}", header.weights * dtype.itemsize)
    with atomic_directory(target) as aside:
        try:
            model, tokenizer = _read(file, dtype)
        except Exception as error:  # parsers of damaged files raise what they like
            raise _unreadable(file, error) from error
        with quiet():
            tokenizer.save_pretrained(str(aside))
            model.save_pretrained(str(aside))
        _check(file, aside, tokenizer)


def _read(file: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with tempfile.TemporaryDirectory() as alone, quiet(), _fast_reader(file):
        place = _link(file, Path(alone))
        source: dict[str, Any] = {"gguf_file": place.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(place.parent, **source)
        both: Any = AutoModelForCausalLM.from_pretrained(
            place.parent,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            **source,
        )
        model, info = both
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise UserError(
            f"the GGUF file lacks {len(names)} tensors of {type(model).__name__}, for example {names[0]}",
            where=f"model.path: {file}",
            fix="give a file with a whole language model; one in several parts has to be joined first",
        )
    broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if broken is not None:
        raise UserError(
            f"damaged GGUF file: {broken} holds values that are not numbers",
            where=f"model.path: {file}",
            fix="download or copy the file again",
        )
    _restore_tie(model)
    return model, tokenizer


def _link(file: Path, folder: Path) -> Path:
    """The file alone in a folder, so that nothing that lies beside it is taken for a part of the model."""
    try:
        (folder / "model.gguf").symlink_to(file.resolve())
    except OSError:  # Windows asks for a privilege
        return file.resolve()
    return folder / "model.gguf"


def _restore_tie(model: Any) -> None:
    """A head that is written out beside an equal embedding is one weight again, as it was before the file was made."""
    import torch

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is embedding.weight or not torch.equal(head.weight, embedding.weight):
        return
    model.config.get_text_config().tie_word_embeddings = True
    model.tie_weights()


def _check(file: Path, folder: Path, tokenizer: Any) -> None:
    """What was written loads, and splits text as the file's own tokenizer."""
    from equipoise.models import tokenizers

    files.check_folder(folder, trust_remote_code=False)
    with quiet():
        again = tokenizers.load(str(folder), local=True)
    probe = tokenizers.PROBE
    if again(probe).input_ids != tokenizer(probe).input_ids:
        raise UserError(
            "the tokenizer of this GGUF file cannot be written as a folder",
            where=f"model.path: {file}",
            fix="use the model's safetensors folder",
        )


@contextmanager
def _fast_reader(file: Path) -> Iterator[None]:
    """Let transformers parse a file once, and show how far it is.

    transformers 5.23 parses the whole header again for the config and for the weights, and builds its table of names
    once for each module: together 70 of 75 seconds for SmolLM2-135M. gguf 0.19 reads each string through a memory map,
    which doubles the time. Its progress bar cannot be turned off.
    """
    import gguf
    import numpy as np
    from transformers import modeling_gguf_pytorch_utils as reading

    class Reader(gguf.GGUFReader):
        @property
        def data(self) -> Any:
            return self.plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self.plain = np.asarray(mapped)

    def shown(tensors: Any, **_: Any) -> Iterator[Any]:
        with progress(len(tensors), f"converting {file.name}") as bar:
            for tensor in tensors:
                yield tensor
                bar.advance()

    with ExitStack() as stack:
        stack.enter_context(_instead(gguf, "GGUFReader", functools.cache(Reader)))
        stack.enter_context(_instead(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)))
        stack.enter_context(_instead(reading, "tqdm", shown))
        yield


@contextmanager
def _instead(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)
