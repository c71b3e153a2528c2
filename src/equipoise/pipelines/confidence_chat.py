"""Talk to a model with confidence tokens: its answer without the token, and how sure it is, calibrated."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from equipoise.config import resolve
from equipoise.console import put, visible, warn
from equipoise.data.formatting import render_prompt
from equipoise.errors import UserError
from equipoise.evaluation.confidence import confidence
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded, load_model
from equipoise.models.tokens import TokenIds
from equipoise.pipelines.asking import questions
from equipoise.pipelines.confidence_settings import ConfidenceRecipe
from equipoise.pipelines.confidence_tokens import known_ids
from equipoise.pipelines.trained import run_of, trained_model
from equipoise.records import Message
from equipoise.signals.calibrators import Calibrator


@dataclass(frozen=True)
class Reply:
    """An answer, the calibrated probability that it is right, and whether p is enough for the run's promise."""

    text: str
    confidence: float
    sure: bool | None  # None where no threshold could be certified


@dataclass(frozen=True)
class Talker:
    """A trained model with what its run found out about its confidence."""

    loaded: Loaded
    recipe: ConfidenceRecipe
    ids: Mapping[str, TokenIds]
    calibrators: Mapping[str, Calibrator]  # by domain
    threshold: float | None

    @classmethod
    def of(cls, run: Path, overrides: list[str] | None = None) -> "Talker":
        """Load the model that `run` means, with the calibrator and threshold of its run.

        Raises:
            UserError: `run` is no confidence-tokens run, or it has not come to a model yet.
        """
        folder = run_of(run)
        if folder is None:
            raise UserError(
                "this is no run directory", where=str(run), fix="give the folder that `equipoise run` wrote"
            )
        recipe = resolve(ConfidenceRecipe, folder / "config.yaml")
        if recipe.mode == "existing-token":
            raise UserError(
                "this run has no confidence tokens: mode existing-token is the control without them",
                where=str(run),
                fix="chat with a run of mode token or self-ref",
            )
        settings = trained_model(str(run), overrides)
        found = _found(folder, _seed(run, recipe))
        if Path(settings.adapter or settings.path).name != "final":
            warn("calibration and threshold were found for `final`, not for this model, so neither is used")
            found = {}, None
        loaded = load_model(settings)
        return cls(loaded, recipe, known_ids(recipe, loaded), *found)

    def instruction(self, domain: str | None = None) -> str | None:
        """What training said after each question of `domain`; without one, what it said in all domains alike."""
        said = {self.recipe.domains[name].instruction for name in ([domain] if domain else self.ids)}
        return said.pop() if len(said) == 1 else None

    def reply(self, question: str, domain: str | None = None) -> Reply:
        """Answer one question. Without a domain the one whose token the model chooses speaks, else the run's first."""
        instruction = self.instruction(domain)
        content = question if instruction is None else f"{question}\n{instruction}"  # as in training
        prompt = render_prompt(self.loaded.tokenizer, [Message(role="user", content=content)])
        marks = [i for pair in self.ids.values() for i in pair]
        (said,) = generate(
            self.loaded.model,
            self.loaded.tokenizer,
            [prompt],
            max_new_tokens=self.recipe.data.max_new_tokens,
            stop_on=marks,
            watch=marks,
        )
        chosen = next((name for name, pair in self.ids.items() if said.stop in pair), next(iter(self.ids)))
        speaking = domain or chosen
        pair, calibrator = self.ids[speaking], self.calibrators.get(speaking)
        logits = dict(zip(marks, said.watched))
        p = confidence(logits[pair.confident], logits[pair.uncertain])
        sure = None if self.threshold is None else p >= self.threshold  # the promise was tested on p as it is
        text = self.loaded.tokenizer.decode(said.ids, skip_special_tokens=True).strip()
        return Reply(text, p if calibrator is None else float(calibrator.apply([p])[0]), sure)


def _seed(run: Path, recipe: ConfidenceRecipe) -> int:
    """The seed of the model that `run` means: the run's only one, or that of the folder `seed-N` it lies in."""
    named = (part.removeprefix("seed-") for part in reversed(run.absolute().parts) if part.startswith("seed-"))
    return next((int(name) for name in named if name.isdigit()), recipe.seeds[0])


def _found(folder: Path, seed: int) -> tuple[dict[str, Calibrator], float | None]:
    """What the run found out: the calibrator of each domain and the certified threshold; nothing if it was cut off."""
    paths = folder / "calibrators.json", folder / "confidence.json"
    if not all(path.is_file() for path in paths):
        warn("this run was not analysed, so its confidence is not calibrated and no threshold is known")
        return {}, None
    saved, analysis = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    calibrators = {task: Calibrator.from_dict(one) for task, one in saved.get(str(seed), {}).items()}
    return calibrators, next((row["threshold"] for row in analysis["abstention"] if row["seed"] == seed), None)


def chat(run: Path, domain: str | None, overrides: list[str]) -> None:
    """Answer each line of stdin, until it ends."""
    talker = Talker.of(run, overrides)
    if domain is not None and domain not in talker.ids:
        raise UserError(f"the run has no domain {domain!r}", where="--domain", fix=f"one of {', '.join(talker.ids)}")
    if domain is None and len({talker.instruction(name) for name in talker.ids}) > 1:
        warn("training added an instruction to each question that hangs on its domain; --domain NAME adds it here")
    for question in questions():
        reply = talker.reply(question, domain)
        put(f"{visible(reply.text)}\n  {_verdict(reply)}\n")


def _verdict(reply: Reply) -> str:
    text = f"confidence {reply.confidence:.0%}"
    if reply.sure is None:
        return f"{text} (this run certified no threshold)"
    return text if reply.sure else f"not sure: {text}"
