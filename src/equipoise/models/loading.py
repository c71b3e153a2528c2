"""Load a causal language model and its tokenizer, with an error a person can act on for everything that goes wrong."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equipoise.config import nearest
from equipoise.console import say
from equipoise.errors import UserError
from equipoise.models import files, gguf, known, tokenizers, unsloth
from equipoise.models.adapters import with_adapter
from equipoise.models.dtypes import NAMES, pick_dtype
from equipoise.models.files import HUB_NAME
from equipoise.models.quiet import explained, quiet

if TYPE_CHECKING:
    from equipoise.models.settings import ModelSettings

_announced: set[str] = set()


@dataclass
class Loaded:
    """A model ready for training or generation, its tokenizer, and the name it was asked for by."""

    model: Any
    tokenizer: Any
    name: str


def load_model(settings: ModelSettings) -> Loaded:
    """Load model, tokenizer and, if one is named, the adapter on top.

    Raises:
        UserError: the path does not exist, the model is gated, damaged, pickled, brings code of its own, does not fit
            its tokenizer, or the adapter was made for another base.
    """
    source, local = locate(settings.path)
    if local:
        files.check_folder(Path(source), trust_remote_code=settings.trust_remote_code)
    device = pick_device(settings.device)
    if settings.quantization == "auto":
        settings = settings.model_copy(update={"quantization": "8bit" if device.type == "cuda" else None})
    shared = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    with explained(settings.path), quiet():
        if not local and not settings.trust_remote_code:
            _check_remote_config(source, settings.revision)
        tokenizer = tokenizers.load(source, local=local, **shared)
        if settings.loader == "unsloth":
            model = unsloth.load(source, settings, device, pick_dtype(settings.dtype, device))
        else:
            model = _weights(source, settings, device, shared)
    tokenizers.fit(model, tokenizer, chat_template=settings.chat_template)
    if settings.device_map is None and settings.quantization is None and settings.loader == "transformers":
        model.to(device)
    if settings.adapter is not None:
        model = with_adapter(model, tokenizer, settings)
    model.eval()
    return Loaded(model, tokenizer, settings.path)


def load_tokenizer(settings: ModelSettings) -> Any:
    """The tokenizer alone, as `load_model` finds it, without its model's pad and stops.

    Raises:
        UserError: as `load_model`.
    """
    source, local = locate(settings.path)
    with explained(settings.path), quiet():
        return tokenizers.load(
            source, local=local, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )


def pick_device(name: str) -> torch.device:
    """The named device; `auto` is CUDA, else the Apple GPU, else the CPU.

    Raises:
        UserError: the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used: {first}", where="model.device", fix="use `auto`") from error
    return device


def _weights(source: str, settings: ModelSettings, device: torch.device, shared: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source, **shared)
    exact = settings.path.startswith("testbed") or settings.quantization is not None
    dtype = pick_dtype(settings.dtype, device, None if exact else config.get_text_config().dtype)
    _announce(settings, device, dtype)
    both: Any = AutoModelForCausalLM.from_pretrained(
        source,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        **_placement(settings, device),
        **shared,
    )
    model, info = both
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise UserError(
            f"the weights lack {len(names)} tensors of {type(model).__name__}, for example {names[0]}",
            where=f"model.path: {settings.path}",
            fix="download the model again, or name the folder of a causal language model",
        )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes' layout for inference, which a first evaluation would leave behind, has no gradient
            module.support_avx512bf16_for_cpu = False
    return model


TESTBEDS = ("testbed", "testbed:questions", "testbed:ner")


def locate(path: str) -> tuple[str, bool]:
    """The folder or Hub name that is meant, and whether it is local; a GGUF file is converted into one first.

    Raises:
        UserError: there is no such folder or file, it is a damaged GGUF file, or a short name that is not fetched yet.
    """
    if path in TESTBEDS:
        return str(_testbed(path)), True
    place = Path(path).expanduser()
    if place.is_dir():
        return str(place), True
    if place.is_file() and gguf.is_gguf(path):
        return str(gguf.folder_of(place)), True
    if path in known.KNOWN:
        return str(known.folder_of(path)), True
    if place.exists() or gguf.is_gguf(path) or not HUB_NAME.fullmatch(path):
        raise UserError(
            f"there is no {'GGUF file' if gguf.is_gguf(path) else 'model folder'} {path}",
            where="model.path",
            fix="give an existing folder or GGUF file, a name on the Hugging Face Hub (owner/model), "
            f"{', '.join(known.KNOWN)} or {', '.join(TESTBEDS)}",
        )
    if "/" not in path and (meant := nearest(path, (*TESTBEDS, *known.KNOWN))):
        raise UserError(f"there is no model {path}", where="model.path", fix=f"did you mean {meant}?")
    return path, False


def _testbed(path: str) -> Path:
    from equipoise.testbed import ner, questions, world

    return {"testbed": world, "testbed:questions": questions, "testbed:ner": ner}[path].model_path()


def _check_remote_config(source: str, revision: str | None) -> None:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(source, "config.json", revision=revision)
    files.check_no_remote_code(Path(path).parent)


def _announce(settings: ModelSettings, device: torch.device, dtype: torch.dtype) -> None:
    """Say once a process that a model is being loaded, and in which format where that was picked for the user."""
    if settings.path.startswith("testbed"):
        return
    picked = settings.dtype == "auto" and device.type == "cpu" and dtype == torch.bfloat16
    why = ", which this CPU computes in; model.dtype=fp32 for full precision" if picked else ""
    words = f"loading {settings.path} on {device} ({NAMES[dtype]}{why}) ..."
    if words not in _announced:
        _announced.add(words)
        say(words)


def _placement(settings: ModelSettings, device: torch.device) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if settings.device_map is not None:
        out["device_map"] = settings.device_map
    if settings.attn_implementation is not None:
        out["attn_implementation"] = settings.attn_implementation
    if settings.quantization is None:
        return out
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"loading in {settings.quantization} needs bitsandbytes, which is not installed",
            where="model.quantization",
            fix='pip install "equipoise[quant]"',
        )
    from transformers import BitsAndBytesConfig

    compute = pick_dtype("auto", device)
    out["quantization_config"] = (
        BitsAndBytesConfig(load_in_8bit=True)
        if settings.quantization == "8bit"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    )
    out.setdefault("device_map", {"": device.index or 0} if device.type == "cuda" else {"": device.type})
    return out
