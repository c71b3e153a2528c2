"""vLLM in this process: the samples of a prompt share its prefix, and each is handed out when it ends."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from equipoise.data.formatting import render_prompt
from equipoise.errors import UserError
from equipoise.models.backends.interface import Reply, Request
from equipoise.models.backends.settings import BackendSettings
from equipoise.models.loading import Loaded
from equipoise.models.settings import ModelSettings
from equipoise.models.thinking import without_thinking

DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Offline:
    """Draws with vLLM's engine. K requests with a seed each, and not one with n=K, which the engine takes apart anyway.

    Raises:
        UserError: vLLM is not installed, or the model's settings are none that it is given here.
    """

    name = "vllm"

    def __init__(self, model: ModelSettings, settings: BackendSettings):
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "backend vllm needs the package vllm, which is not installed",
                where="sampling.backend",
                fix='pip install "equipoise[vllm]" (Linux with a GPU), or use backend hf',
            )
        for name in ("adapter", "quantization", "device_map", "chat_template"):
            if getattr(model, name) is not None:
                raise UserError(
                    f"model.{name} is not passed on to vLLM",
                    where=f"model.{name}",
                    fix="export the model as one plain folder (`equipoise export`), or use backend hf",
                )
        self._model, self._settings = model, settings

    @cached_property
    def _engine(self) -> Any:
        from vllm import LLM  # pyright: ignore[reportMissingImports]

        return LLM(
            model=self._model.path,
            revision=self._model.revision,
            dtype=DTYPES[self._model.dtype],
            trust_remote_code=self._model.trust_remote_code,
            enable_prefix_caching=True,
        )

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield the replies that ended in the same step of the engine."""
        if not requests:
            return
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        options, engine = self._settings, self._engine.llm_engine
        tokenizer = self._engine.get_tokenizer()
        if not options.enable_thinking:
            tokenizer = without_thinking(Loaded(None, tokenizer, self._model.path)).tokenizer
        for number, request in enumerate(requests):
            params = SamplingParams(
                temperature=options.temperature,
                top_p=options.top_p,
                max_tokens=options.max_new_tokens,
                seed=request.seed,
                logprobs=0,  # of the chosen tokens alone
            )
            ids = render_prompt(tokenizer, list(request.messages))
            engine.add_request(str(number), {"prompt_token_ids": ids}, params)
        while engine.has_unfinished_requests():
            ended = [one for one in engine.step() if one.finished]
            if ended:
                yield [_reply(requests[int(one.request_id)], one.outputs[0]) for one in ended]


def _reply(request: Request, output: Any) -> Reply:
    held = output.logprobs or []
    logprobs = [float(at[token].logprob) for at, token in zip(held, output.token_ids)]
    return Reply(
        request.key,
        output.text,
        "length" if output.finish_reason == "length" else "stop",
        len(output.token_ids),
        sum(logprobs) if logprobs else None,
        min(logprobs) if logprobs else None,
    )
