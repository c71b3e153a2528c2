"""Which number format a model is loaded in."""

from __future__ import annotations

from typing import Any

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
IN_HARDWARE = ("avx512_bf16", "amx_bf16")  # what x86 processors that multiply bf16 matrices list


def cpu_has_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 matrices in hardware; where it does not, bf16 is slower than fp32."""
    try:
        capabilities = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):  # a build of torch that does not ask the processor
        return False
    return any(capabilities.get(name) for name in IN_HARDWARE)


def pick_dtype(wanted: str, device: torch.device, stored: Any = None) -> torch.dtype:
    """Return the format to load weights in; `auto` is bf16 where the device computes in it.

    On a CPU, weights that are `stored` in 32 bits stay so: a rounding that nobody asked for would change what a model
    trained in full precision says.
    """
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    half = str(stored).removeprefix("torch.") in ("bfloat16", "float16")
    return torch.bfloat16 if device.type == "cpu" and half and cpu_has_bf16() else torch.float32
