"""Talk to any model: answers stream as they are written, in colours of their probability if asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from equipoise.console import put, say, visible
from equipoise.data.formatting import render_prompt
from equipoise.errors import UserError
from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings
from equipoise.models.streaming import Piece, stream
from equipoise.pipelines.asking import questions
from equipoise.pipelines.chat_settings import ChatSettings
from equipoise.records import Message
from equipoise.training.interrupts import StopRequest

SHADES = ((0.2, "bold red"), (0.5, "dark_orange"), (0.9, "yellow"), (1.1, ""))  # up to which probability, which style
HELP = "/reset forgets the conversation, /quit ends"


@dataclass
class Conversation:
    """A model, how it is to answer, and what has been said so far (without the system prompt)."""

    loaded: Loaded
    settings: ChatSettings
    turns: list[Message] = field(default_factory=list)
    asked: int = 0

    def ask(self, question: str, *, interrupted: Callable[[], bool] = lambda: False) -> Iterator[Piece]:
        """Yield the answer as it is written, and remember both; the n-th question draws with the seed + n.

        Where the model's window is too small for the whole conversation, its oldest turns are forgotten.

        Raises:
            UserError: the question alone does not fit, or the chat template refuses the conversation.
        """
        turns = [*self.turns, Message(role="user", content=question)]
        turns, prompt, room = self._fit(turns)
        seed, said = self.settings.seed + self.asked, ""
        self.asked += 1
        for piece in stream(
            self.loaded.model,
            self.loaded.tokenizer,
            prompt,
            max_new_tokens=room,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=seed,
            stop=self.settings.stop,
            interrupted=interrupted,
        ):
            said += piece.text
            yield piece
        self.turns = [*turns, Message(role="assistant", content=said)]

    def _fit(self, turns: list[Message]) -> tuple[list[Message], list[int], int]:
        """The last turns that fit into the model's window, their tokens, and how many the answer may have."""
        config = self.loaded.model.config.get_text_config()
        window = getattr(config, "max_position_embeddings", None)
        wanted = self.settings.max_new_tokens
        prompt = self._render(turns)
        while window is not None and len(prompt) + wanted > window and len(turns) > 1:
            turns = turns[2:]
            prompt = self._render(turns)
        room = wanted if window is None else min(wanted, window - len(prompt))
        if room < 1:
            raise UserError(
                f"the question has {len(prompt)} tokens, and the model sees {window} at once", fix="ask a shorter one"
            )
        return turns, prompt, room

    def _render(self, turns: Sequence[Message]) -> list[int]:
        system = [] if self.settings.system is None else [Message(role="system", content=self.settings.system)]
        return render_prompt(self.loaded.tokenizer, [*system, *turns])


def chat(model: ModelSettings, settings: ChatSettings) -> None:
    """Answer each line of stdin, until it ends; on a terminal with memory and commands.

    Raises:
        UserError: the model cannot be loaded, or a question from a pipe cannot be asked.
        KeyboardInterrupt: a signal came; what had been written of the answer is shown.
    """
    typed = sys.stdin.isatty()
    remember = typed if settings.memory is None else settings.memory
    talk, show = Conversation(load_model(model), settings), _printer(settings)
    if typed:
        say(f"{talk.loaded.name}; {HELP}")
    for question in questions():
        if typed and question in ("/quit", "/exit"):
            return
        if typed and question in ("/help", "/reset"):
            if question == "/reset":
                talk.turns = []
            say("forgotten" if question == "/reset" else HELP)
            continue
        try:
            _answer(talk, question, show)
        except UserError as error:
            if not typed:
                raise
            say(f"error: {error}")  # the next question may be a better one
        if not remember:
            talk.turns = []


def _answer(talk: Conversation, question: str, show: Callable[[Piece], None]) -> None:
    finish = None
    with StopRequest() as stop:
        for piece in talk.ask(question, interrupted=lambda: stop.requested is not None):
            show(piece)
            finish = piece.finish or finish
        put("\n")
    if finish == "interrupted":
        raise KeyboardInterrupt
    if finish == "length":
        say("(cut off at the most tokens allowed; --max-new-tokens allows more)")


def _printer(settings: ChatSettings) -> Callable[[Piece], None]:
    """How pieces are shown: plainly, in colours with a legend, or, where there are no colours, with numbers."""
    if not settings.confidence:
        return lambda piece: put(visible(piece.text))
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal or console.no_color or os.environ.get("TERM") == "dumb":
        return lambda piece: put(f"{visible(piece.text)}[{100 * piece.probability:.0f}]" if piece.text else "")
    for at, (until, style) in enumerate(SHADES):
        words = f"under {until:.0%}" if until < 1 else f"{SHADES[at - 1][0]:.0%} and over"
        console.out(words, style=style or None, end="  ")
    console.out("probability of each token", style="dim")
    return lambda piece: console.out(visible(piece.text), style=_shade(piece.probability) or None, end="")


def _shade(probability: float) -> str:
    return next(style for until, style in SHADES if probability < until)
