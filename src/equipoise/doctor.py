"""`equipoise doctor`: is everything here that a run needs, and if not, what to do."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from equipoise.console import table

OK, NOTE, BAD = "ok", "note", "missing"
EXTRAS = {"remote": "openai", "quant": "bitsandbytes", "unsloth": "unsloth", "vllm": "vllm", "track": "tensorboard"}
NEEDED_GB = 5


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `BAD` means that something the package needs is not there."""

    what: str
    state: str
    detail: str


def examine() -> int:
    """Print the examination; return 0 if everything that is needed is there, else 2."""
    findings = [*_python(), *_packages(), *_device(), *_extras(), *_token(), *_disk()]
    table("equipoise doctor", ["what", "state", "detail"], [[f.what, f.state, f.detail] for f in findings], words=True)
    return 2 if any(f.state == BAD for f in findings) else 0


def _python() -> Iterator[Finding]:
    new_enough = sys.version_info >= (3, 11)
    yield Finding(
        "python", OK if new_enough else BAD, f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )


def _packages() -> Iterator[Finding]:
    """Compare what is installed with the bounds in the package's own metadata."""
    for line in requires("equipoise") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, BAD, f"pip install '{requirement}'")
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        yield Finding(
            requirement.name, OK if fits else BAD, found if fits else f"{found}; needs {requirement.specifier}"
        )


def _device() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name, total = torch.cuda.get_device_name(index), torch.cuda.get_device_properties(index).total_memory
            yield Finding(
                f"cuda:{index}",
                OK,
                f"{name}, {total / 2**30:.0f} GiB, bf16 {torch.cuda.is_bf16_supported(including_emulation=False)}",
            )
    elif torch.backends.mps.is_available():
        yield Finding("mps", OK, "Apple GPU")
    else:
        yield Finding(
            "gpu", NOTE, f"none; the testbed runs on {torch.get_num_threads()} CPU threads, large models want a GPU"
        )


def _extras() -> Iterator[Finding]:
    for extra, module in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(
            f"extra {extra}",
            OK if there else NOTE,
            module if there else f"pip install 'equipoise[{extra}]' if you want it",
        )


def _token() -> Iterator[Finding]:
    """Say whether a Hub token is there, never what it is."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the cached login" if (home / "token").is_file() else None
    detail = f"from {source}" if source else "none; only gated or private models need one (`hf auth login`)"
    yield Finding("hub token", OK if source else NOTE, detail)


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    writable = os.access(Path.cwd(), os.W_OK)
    state = OK if free >= NEEDED_GB and writable else NOTE
    yield Finding("disk", state, f"{free:.0f} GiB free here" + ("" if writable else "; this folder is read-only"))
