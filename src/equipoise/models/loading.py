"""Load a causal language model and its tokenizer, with an error a person can act on for everything that goes wrong."""

from __future__ import annotations

import hashlib
import importlib.util
import logging as standard_logging
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equipoise.errors import UserError
from equipoise.models import files, tokenizers

if TYPE_CHECKING:
    from equipoise.models.settings import ModelSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BASE_FILE = "base.json"
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


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
    from transformers import AutoConfig, AutoModelForCausalLM

    source, local = _locate(settings.path)
    if local:
        files.check_folder(Path(source), trust_remote_code=settings.trust_remote_code)
    device = pick_device(settings.device)
    shared = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    with _explained(settings), quiet():
        if not local and not settings.trust_remote_code:
            _check_remote_config(source, settings.revision)
        config = AutoConfig.from_pretrained(source, **shared)
        tokenizer = tokenizers.load(source, local=local, **shared)
        both: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=_dtype(settings.dtype, device),
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
    tokenizers.fit(model, tokenizer, chat_template=settings.chat_template)
    if settings.device_map is None and settings.quantization is None:
        model.to(device)
    if settings.adapter is not None:
        model = _with_adapter(model, settings)
    model.eval()
    return Loaded(model, tokenizer, settings.path)


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


def fingerprint(model: Any) -> str:
    """A checksum of names, shapes and a sample of every weight (as bf16, so that the loading dtype does not matter)."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        if weight.is_floating_point():
            digest.update(weight.detach().flatten()[:64].to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


# what the libraries say to each other, and no user can act on
_NOISE = (
    r"`is_gradient_checkpointing` is deprecated",  # peft 0.21 asks transformers 5.23 by the old name
)


@contextmanager
def quiet():
    """Keep transformers from drawing its own progress bars and advice over ours."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    standard_logging.getLogger("bitsandbytes").setLevel("ERROR")  # it warns at import of a CPU kernel it can do without
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _locate(path: str) -> tuple[str, bool]:
    """The folder or Hub name that is meant, and whether it is local."""
    if path == "testbed":
        from equipoise.testbed.world import model_path

        return str(model_path()), True
    folder = Path(path).expanduser()
    if folder.is_dir():
        return str(folder), True
    if folder.exists() or not HUB_NAME.fullmatch(path):
        raise UserError(
            f"there is no model folder {path}",
            where="model.path",
            fix="give an existing folder, a name on the Hugging Face Hub (owner/model), or `testbed`",
        )
    return path, False


def _check_remote_config(source: str, revision: str | None) -> None:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(source, "config.json", revision=revision)
    files.check_no_remote_code(Path(path).parent)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32


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

    compute = _dtype("auto", device)
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


def _with_adapter(model: Any, settings: ModelSettings) -> Any:
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    assert settings.adapter is not None
    folder = Path(settings.adapter).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        if not HUB_NAME.fullmatch(settings.adapter):
            raise UserError(
                f"there is no adapter folder {settings.adapter}",
                where="model.adapter",
                fix="give the folder that training wrote (`final`), or a name on the Hugging Face Hub",
            )
        with _explained(settings):
            folder = Path(snapshot_download(settings.adapter, allow_patterns=["*.json", "*.safetensors"]))
    files.check_folder(folder, trust_remote_code=settings.trust_remote_code, weights="adapter_model")
    _check_base(model, folder, PeftConfig.from_pretrained(str(folder)).base_model_name_or_path, settings)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (RuntimeError, ValueError) as error:
        raise _other_base(settings, str(error).splitlines()[0]) from error
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        unknown = set(stored.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    unknown = {name for name in unknown if "embed" not in name and "lm_head" not in name}
    if unknown:
        raise _other_base(settings, f"{len(unknown)} tensors do not match, for example {min(unknown)}")
    return adapted


def _check_base(model: Any, folder: Path, base: str | None, settings: ModelSettings) -> None:
    """By our own checksum where training left one, else by the Hub name that PEFT recorded."""
    note = folder / BASE_FILE
    if note.is_file():
        if files.read_json(note).get("fingerprint") != fingerprint(model):
            raise _other_base(settings, "the base's weights are not those it was trained on")
        return
    both_hub = base and not Path(base).exists() and not Path(base).is_absolute() and not Path(settings.path).exists()
    if both_hub and settings.path != "testbed" and base != settings.path:
        raise _other_base(settings, f"it was trained on {base}")


def _other_base(settings: ModelSettings, detail: str) -> UserError:
    return UserError(
        f"the adapter {settings.adapter} was made for another base than {settings.path}: {detail}",
        where="model.adapter",
        fix="set model.path to the base that the adapter was trained on",
    )


@contextmanager
def _explained(settings: ModelSettings):
    """Turn what the Hub and the loaders raise into one message; the token itself never appears in it."""
    from huggingface_hub import errors as hub

    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        chain, seen = error, []
        while chain is not None and chain not in seen:
            seen.append(chain)
            chain = chain.__cause__ or chain.__context__
        where = f"model.path: {settings.path}"
        if any(isinstance(e, hub.GatedRepoError) for e in seen):
            raise UserError(
                f"{settings.path} is gated, and no token with access was found",
                where=where,
                fix="accept its terms on huggingface.co, then set HF_TOKEN or run `hf auth login`",
                docs="docs/models.md#gated",
            ) from error
        if any(isinstance(e, hub.RepositoryNotFoundError | hub.RevisionNotFoundError) for e in seen):
            raise UserError(
                f"the Hugging Face Hub has no model {settings.path} (or it is private)",
                where=where,
                fix="check the name and revision; for a private model set HF_TOKEN or run `hf auth login`",
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the model cannot be loaded: {first}", where=where, fix="see the first line above") from error
