"""What the verbs that use a model do: `chat` and `export`, and the sanity suite of `evaluate`."""

import json
from pathlib import Path
from typing import Any

from equipoise.config import load_yaml, resolve
from equipoise.errors import UserError
from equipoise.pipelines.chat_settings import ChatSettings
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


def _has_confidence_tokens(model: str) -> bool:
    run = run_of(Path(model))
    config = load_yaml(run / "config.yaml") if run else {}
    return config.get("pipeline") == "confidence_tokens" and config.get("mode") != "existing-token"
