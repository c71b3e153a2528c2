"""How samples are drawn, and by what."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from equipoise.config import Section

OLLAMA = "http://localhost:11434/v1"
Temperature = Annotated[float, Field(ge=0, le=10)]


class BackendSettings(Section):
    """The backend and the distribution it draws from.

    `hf` is the model in this process; `openai` any server that speaks OpenAI's chat protocol (vLLM, SGLang, llama.cpp,
    ...); `ollama` the same with Ollama's own address; `vllm` that engine in this process (extra `vllm`). `model.path`
    is then the server's name of the model.

    At temperature 1 without a nucleus an answer comes up as often as the model holds it likely, which is what
    agreement between samples is to measure; 0 is greedy.
    """

    backend: Literal["hf", "openai", "ollama", "vllm"] = "hf"
    temperature: Temperature = 1.0
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=128, ge=1)
    enable_thinking: bool = False  # where the chat template or the server knows such a switch
    batch_tokens: int = Field(default=8192, ge=1)  # hf: prompts plus answers of one batch
    base_urls: list[str] = Field(default_factory=list)  # the servers of one model, used in turn
    api_key_env: str = "OPENAI_API_KEY"  # the variable that holds the key; local servers need none
    concurrency: int = Field(default=8, ge=1, le=1024)  # requests in flight
    timeout: float = Field(default=120, gt=0)  # seconds for one answer
    retries: int = Field(default=6, ge=0)
    backoff: float = Field(default=1.0, gt=0)  # seconds before the second try; doubled from try to try
    logprobs: bool = True  # ask the server for log-probabilities; one that has none is asked without
    use_n: bool = False  # all answers to a prompt in one request: cheaper where prompts are paid, but with one seed

    @model_validator(mode="after")
    def _servers(self) -> Self:
        for url in self.base_urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ValueError(f"{url!r} is no address of a server: write it as http://localhost:8000/v1")
        if self.backend == "openai" and not self.base_urls:
            raise ValueError("backend openai needs base_urls (--base-url): where the server is, with its /v1")
        if self.base_urls and self.backend in ("hf", "vllm"):
            raise ValueError(f"base_urls has no effect with backend {self.backend}; use openai")
        return self

    @property
    def servers(self) -> list[str]:
        """The addresses to ask."""
        return self.base_urls or ([OLLAMA] if self.backend == "ollama" else [])
