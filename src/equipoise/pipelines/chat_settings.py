"""How a chat answers; torch-free, so that a mistake is told before a model is loaded."""

from pydantic import Field

from equipoise.config import Section


class ChatSettings(Section):
    """Temperature 0 is greedy. `memory: null` remembers earlier turns on a terminal, and not when reading a pipe."""

    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.2, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    stop: list[str] = Field(default_factory=list)
    seed: int = Field(default=42, ge=0)
    system: str | None = None
    confidence: bool = False
    memory: bool | None = None
