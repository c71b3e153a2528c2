"""How answers to knowledge updates are asked for and scored; torch-free."""

from typing import Literal

from pydantic import Field

from equipoise.config import Section


class ScoringSettings(Section):
    """How answers are scored.

    `answers` says what counts as the answer. `stated`: what the text states, with code read out of Markdown and prose,
    and a call right whatever its arguments; `bare`: the whole text, which has to be the right one and nothing else.
    `auto` is `bare` for the testbed's own models and `stated` for all others.

    `scorer: auto` takes the call, the function or the text, as the right answer is; `exact` compares whole texts.
    """

    answers: Literal["auto", "stated", "bare"] = "auto"
    scorer: Literal["auto", "call", "function", "exact"] = "auto"
    scoring: Literal["strict", "published"] = "strict"
    run_unit_tests: bool = False  # executes generated functions in a limited subprocess
    max_new_tokens: int = Field(default=128, ge=1)  # of a stated answer; a bare one may be half as long again as gold
    batch_tokens: int = Field(default=8192, ge=1)  # prompts and answers at a time, of all runs together

    def reads_prose(self, model: str) -> bool:
        """Tell whether the answers of the model of this name are read out of prose."""
        return self.answers == "stated" or (self.answers == "auto" and not model.startswith("testbed"))
