"""What the verbs that use a model do: `chat` and `export`, and the sanity suite of `evaluate`."""

import json
from pathlib import Path
from typing import Any

from equipoise.config import load_yaml, resolve
from equipoise.console import table
from equipoise.disk import make_folder
from equipoise.errors import UserError
from equipoise.journal import write_jsonl
from equipoise.pipelines.chat_settings import ChatSettings
from equipoise.pipelines.confidence_settings import ConfidenceRecipe
from equipoise.pipelines.trained import run_of, trained_model


def chat(model: str, domain: str | None, overrides: list[str], options: dict[str, Any]) -> None:
    """Talk to `model`: a run of confidence tokens says how sure it is of each answer, any other one just talks.

    Args:
        options: settings of `ChatSettings`, None where the command line names none.

    Raises:
        UserError: there is no such model, or an option has no meaning for it.
    """
    given = {name: value for name, value in options.items() if value not in (None, [])}
    if _has_confidence_tokens(model):
        if given:
            words = ", ".join("--" + name.replace("_", "-") for name in given)
            raise UserError(
                f"{words} has no meaning for a run of confidence tokens, which is asked as it was trained",
                where=model,
                fix="leave it out, or chat with the folder that `equipoise export` makes of the run",
            )
        from equipoise.pipelines.confidence_chat import chat as talk_with_confidence

        return talk_with_confidence(Path(model), domain, overrides)
    if domain is not None:
        raise UserError("only a run of confidence tokens has domains", where="--domain", fix="leave it out")
    if "stop" in given:
        given["stop"] = [text.replace("\\n", "\n").replace("\\t", "\t") for text in given["stop"]]
    words = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
    settings = resolve(ChatSettings, None, words)
    target = trained_model(model, overrides)
    from equipoise.pipelines.chat import chat as talk

    return talk(target, settings)


def export(model: str, out: Path, overrides: list[str], *, adapter: bool = False, push_to: str | None = None) -> Path:
    """Write the trained model that `model` means as one plain folder at `out`, or its adapter; return it.

    A card (README.md) and TESTING.md go with it. With `push_to` the folder is uploaded to that Hub repository.

    Raises:
        UserError: there is no such model, `out` is not empty, or the upload fails.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("the folder is not empty", where=str(out), fix="choose another with --out")
    from equipoise.models.export import merge, save_adapter, save_merged
    from equipoise.models.loading import load_model
    from equipoise.models.upload import push

    settings = trained_model(model, overrides)
    documents = _documents(Path(settings.adapter or settings.path), settings.path, adapter)
    if adapter:
        save_adapter(settings, out, documents)
    else:
        if settings.adapter is not None and settings.dtype == "auto":
            settings = settings.model_copy(update={"dtype": "fp32"})  # 16 bits would round most of the adapter away
        save_merged(merge(load_model(settings)), out, documents)
    if push_to is not None:
        push(push_to, out, card=out / "README.md", again=f"then `hf upload {push_to} {out}`: the folder is complete")
    return out


def sanity(model: str, suite: str, overrides: list[str], beside: list[str], out: Path | None) -> None:
    """Print what `model`, its base where it has an adapter, and those `beside` it answer to a sanity suite.

    The answers in full go to `sanity.jsonl` in `out`.

    Raises:
        UserError: the suite or a model is at fault.
    """
    from equipoise.evaluation.sanity import load_suite, run_suite, side_by_side
    from equipoise.models.loading import load_model

    prompts = load_suite(suite)
    asked = {name: trained_model(name, overrides) for name in (*beside, model)}
    if asked[model].adapter is not None:
        asked = {"base": asked[model].model_copy(update={"adapter": None}), **asked}
    if out:
        make_folder(out)  # before the work whose result it is to hold
    rows = []
    for name, settings in asked.items():
        rows += run_suite(load_model(settings), prompts, model=name)  # one in memory at a time
    table("sanity", *side_by_side(rows), words=True)
    if out:
        write_jsonl(out / "sanity.jsonl", [row.model_dump() for row in rows])


def _documents(folder: Path, base: str, adapter: bool) -> dict[str, str]:
    """The card and the testing sheet of the model in `folder`, from what its run says, if it lies in one."""
    from equipoise.pipelines.card import Card, Origin
    from equipoise.pipelines.confidence_card import model_card
    from equipoise.pipelines.testing_sheet import testing_sheet

    run = run_of(folder)
    library = "peft" if adapter else "transformers"
    about = (
        f"{base}, with an adapter." if adapter else f"{base}, with what it was taught since merged into its weights."
    )
    if run is None:
        nothing = "No run directory was given with this model, so nothing is known of it."
        card = Card(folder.name, base, about, nothing, nothing, nothing, library)
        return {"README.md": card.markdown(), "TESTING.md": testing_sheet(folder.name, [], nothing, adapter=adapter)}
    origin = Origin.of(run, folder)
    name = str(origin.config.get("name", run.name))
    sheet = testing_sheet(name, origin.answers, origin.measured(), adapter=adapter)
    if _has_confidence_tokens(str(folder)) and (run / "confidence.json").is_file():
        recipe = resolve(ConfidenceRecipe, run / "config.yaml")
        analysis = json.loads((run / "confidence.json").read_text(encoding="utf-8"))
        return {"README.md": model_card(recipe, analysis, library=library), "TESTING.md": sheet}
    card = Card(name, base, about, origin.data(), origin.measured(), origin.training(), library)
    return {"README.md": card.markdown(), "TESTING.md": sheet}


def _has_confidence_tokens(model: str) -> bool:
    run = run_of(Path(model))
    config = load_yaml(run / "config.yaml") if run else {}
    return config.get("pipeline") == "confidence_tokens" and config.get("mode") != "existing-token"
