"""Builds a testbed: world, tokenizer, the model pre-trained on it, and the data sheet of what the model knows."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from transformers import AutoTokenizer

from equipoise.errors import UserError
from equipoise.evaluation import datasheet as datasheets
from equipoise.evaluation import nersheet as nersheets
from equipoise.evaluation import questionsheet as questionsheets
from equipoise.evaluation.datasheet import datasheet
from equipoise.evaluation.nersheet import nersheet
from equipoise.evaluation.questionsheet import questionsheet
from equipoise.journal import atomic_directory, write_json
from equipoise.pipelines.pretraining import PretrainSettings, deterministic, pretrain, save_model
from equipoise.pipelines.strong import default_settings, teach
from equipoise.testbed import ner, questions, world
from equipoise.testbed.ner import NerWorld
from equipoise.testbed.questions import QuestionWorld
from equipoise.testbed.settings import NerSettings, QuestionSettings, WorldSettings
from equipoise.testbed.tokenizer import save_tokenizer
from equipoise.testbed.world import World
from equipoise.training.settings import TrainSettings


class BuildSettings(PretrainSettings):
    """The first world, of API changes and facts, and its model."""

    world: WorldSettings = WorldSettings()


class QuestionBuildSettings(PretrainSettings):
    """The world of reading and medical questions, and its model, half the size of the first."""

    world: QuestionSettings = QuestionSettings()
    threads: int = Field(default=1, ge=1)  # with another number the build ends in other bits
    hidden_size: int = 160
    intermediate_size: int = 416
    layers: int = 6
    heads: int = 5
    initializer_range: float = 0.05
    lookup_start: bool = True
    learning_rate: float = Field(default=1.5e-3, gt=0)
    rows: int = Field(default=4, ge=1)
    strong: TrainSettings = Field(default_factory=default_settings)  # the adapter beside it


class NerBuildSettings(PretrainSettings):
    """The world of entities and its model, the smallest: many answers are drawn from it, and it is trained on them."""

    world: NerSettings = NerSettings()
    hidden_size: int = 128
    intermediate_size: int = 384
    initializer_range: float = 0.05
    lookup_start: bool = True
    rows: int = Field(default=4, ge=1)


AnySettings = BuildSettings | QuestionBuildSettings | NerBuildSettings


@dataclass(frozen=True)
class _Made:
    """How a model of the testbed is made, measured and shown."""

    settings: type[AnySettings]
    world: Callable[[Any], Any]
    measure: Callable[[Path, Any], dict[str, Any]]
    show: Callable[[dict[str, Any]], str]
    sheet: Path  # of the shipped model


_MODELS = {
    "world": _Made(BuildSettings, World.build, datasheet, datasheets.markdown, world.datasheet_path()),
    "questions": _Made(
        QuestionBuildSettings, QuestionWorld.build, questionsheet, questionsheets.markdown, questions.datasheet_path()
    ),
    "ner": _Made(NerBuildSettings, NerWorld.build, nersheet, nersheets.markdown, ner.datasheet_path()),
}


def settings_of(model: str) -> type[AnySettings]:
    """The settings that build a model, by its name: `world`, `questions` or `ner`.

    Raises:
        UserError: there is no such model.
    """
    return _made(model).settings


def shipped_sheet(model: str) -> str:
    """What a shipped model knows, as a Markdown table.

    Raises:
        UserError: there is no such model.
    """
    made = _made(model)
    return made.show(json.loads(made.sheet.read_text(encoding="utf-8")))


def _made(model: str) -> _Made:
    if model not in _MODELS:
        raise UserError(f"the testbed has no model {model!r}", where="--model", fix=f"one of {', '.join(_MODELS)}")
    return _MODELS[model]


def build(out: Path, settings: AnySettings | None = None) -> dict[str, Any]:
    """Build everything under `out`: `model/`, `datasheet.json` and, for the questions, the adapter `strong/`.

    A model that stands there is replaced when the new one is complete. Returns the data sheet. Takes about ten minutes
    on two quiet cores with the settings as they are.
    """
    settings = settings or BuildSettings()
    made = next(made for made in _MODELS.values() if isinstance(settings, made.settings))
    started = time.monotonic()
    taught = made.world(settings.world)
    folder = Path(out) / "model"
    with atomic_directory(folder) as unfinished:
        save_tokenizer(taught.tokenizer(), unfinished, max_length=settings.max_length)
        tokenizer = AutoTokenizer.from_pretrained(unfinished)
        save_model(pretrain(taught.documents(), tokenizer, settings), tokenizer, unfinished)
    if isinstance(settings, QuestionBuildSettings):
        with deterministic(settings.seed, settings.threads):
            teach(folder, taught.lessons, Path(out) / "strong", settings.strong, settings.seed)
    seconds = round(time.monotonic() - started)
    sheet = {"build": settings.model_dump() | {"seconds": seconds}} | made.measure(folder, taught)
    write_json(Path(out) / "datasheet.json", sheet)
    return sheet
