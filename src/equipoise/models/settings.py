"""What can be said about a model in a configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from equipoise.config import Section


class ModelSettings(Section):
    """Which causal language model, and how to load it.

    `path` is a local folder, a GGUF file, a name on the Hugging Face Hub, a short name of `equipoise models list`, or
    `testbed` for the small model that comes with the package. `dtype: auto` is bf16 on a GPU that has it, and on a CPU
    that computes in it if the weights are stored in 16 bits; the testbed's models stay fp32. `chat_template` is null
    (the tokenizer's own), `plain` (contents one under the other, for base models) or the path of a Jinja file.
    `quantization: auto` is 8bit on a CUDA GPU and none elsewhere. `loader: unsloth` needs such a GPU and the package.
    """

    path: str = "testbed"
    adapter: str | None = None
    revision: str | None = None
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    quantization: Literal["auto", "8bit", "4bit"] | None = None
    device: str = "auto"
    device_map: str | dict[str, Any] | None = None
    attn_implementation: str | None = None
    chat_template: str | None = None
    trust_remote_code: bool = False
    loader: Literal["transformers", "unsloth"] = "transformers"

    @model_validator(mode="after")
    def _one_placement(self) -> ModelSettings:
        if self.device_map is not None and self.device != "auto":
            raise ValueError("give device or device_map, not both")
        if self.loader == "unsloth" and self.device_map is not None:
            raise ValueError("unsloth places the model itself; leave device_map out")
        return self
