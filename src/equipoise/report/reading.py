"""A run directory as the report sees it: what is there, and a sentence for each file that is missing or damaged."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from equipoise.errors import UserError
from equipoise.journal import read_journal
from equipoise.runs import FALSE_ALARM, SCHEDULE, SELECTION, THRESHOLDS

ANALYSES = ("analysis.json", "confidence.json", "synthetic.json", "instruct.json", "frontier.json")
KNOWN = (*ANALYSES, "results.json", "metrics.jsonl", "predictions.jsonl", "cells", "config.yaml")
SCHEDULED = ("learning_rate", "epochs")  # what `auto` may stand for
Rows = list[dict[str, Any]]
Curves = dict[str, dict[str, Rows]]  # arm -> seed -> rows


@dataclass
class RunData:
    """Everything that a report can draw. A part that could not be read is None or empty, and `problems` says why.

    Attributes:
        changes: answers of trained models beside those of the untrained one.
        selection, schedule, thresholds: what the run decided with the untrained model at hand, where it had to; of the
            schedule what its recipe left to it.
        metrics: rows of one training step each, by arm and seed.
        problems: a sentence for each file that is missing or damaged, by the file's name.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    analysis: dict[str, Any] | None = None
    detection: dict[str, Any] | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    missed: list[dict[str, Any]] | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)
    selection: dict[str, Any] | None = None
    schedule: dict[str, Any] = field(default_factory=dict)
    thresholds: list[dict[str, Any]] | None = None
    metrics: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def arms(self) -> list[str]:
        """Name the arms, in the order of the analysis, else of the recipe, else of the results."""
        if self.analysis and isinstance(self.analysis.get("arms"), dict) and self.analysis["arms"]:
            return list(self.analysis["arms"])
        if isinstance(self.config.get("arms"), dict):
            return list(self.config["arms"])
        named = dict.fromkeys(str(row.get("method")) for row in self.results)
        return [name for name in named or self.metrics if name != "untrained"]


def open_run(path: Path) -> RunData:
    """Read what every run directory holds: the recipe and the manifest.

    Raises:
        UserError: there is no such folder, or it holds no run.
    """
    if not path.is_dir():
        raise UserError("there is no such run directory", where=str(path), fix="give the folder that a run wrote")
    if not any((path / name).exists() for name in KNOWN):
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise UserError(
            f"this folder holds no run (found: {found})", where=str(path), fix=f"expected {', '.join(KNOWN)}"
        )
    run = RunData(path)
    run.config, run.config_text = _config(run)
    if (path / THRESHOLDS).exists():
        run.thresholds = read_json(run, THRESHOLDS, list)
        _put_taus(run.config, run.thresholds or [])
    if (path / SCHEDULE).exists():
        run.schedule = _put_schedule(run.config, read_json(run, SCHEDULE, dict) or {})
    run.manifest = read_json(run, "manifest.json", dict) or {}
    return run


def read_run(path: Path) -> RunData:
    """Read what the run directory of a comparison holds; nothing in it is changed.

    Raises:
        UserError: there is no such folder, or it holds no run.
    """
    run = open_run(path)
    run.analysis = read_json(run, "analysis.json", dict)
    run.detection = read_json(run, "detection.json", dict)
    run.results = [row for row in read_json(run, "results.json", list) or [] if isinstance(row, dict)]
    run.missed = read_json(run, "missed.json", list)
    run.selection = read_json(run, SELECTION, dict) if (path / SELECTION).exists() else None
    run.changes = read_rows(run, "changes.jsonl")
    run.predictions = read_rows(run, "predictions.jsonl")
    run.tokens = read_rows(run, "tokens.jsonl")
    run.metrics = _metrics(run)
    return run


def read_json(run: RunData, name: str, kind: type) -> Any:
    """Read a file that should hold a `kind`; else note the problem and return None."""
    try:
        value = json.loads((run.path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        run.problems[name] = f"{name} is not there."
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        run.problems[name] = f"{name} is damaged ({error})."
        return None
    if not isinstance(value, kind):
        run.problems[name] = f"{name} does not hold what was expected."
        return None
    return value


def read_rows(run: RunData, name: str) -> list[dict[str, Any]]:
    """Read the sound rows of a journal; note a problem where it is missing or some are not sound."""
    path = run.path / name
    if not path.is_file():
        run.problems[name] = f"{name} is not there."
        return []
    journal = read_journal(path)
    if journal.damaged or journal.torn:
        run.problems[name] = f"Some lines of {name} are damaged and were left out."
    return [row for row in journal.rows if isinstance(row, dict)]


def by_seed(paths: Iterable[Path]) -> list[Path]:
    """Sort files by the number that their folder ends in."""
    return sorted(paths, key=lambda p: (len(p.parent.name), p.parent.name))


def read_curves(run: RunData, name: str, arms: Sequence[str]) -> Curves:
    """Read a journal of training of every cell: `arms` first, in their order."""
    curves: Curves = {}
    for path in by_seed((run.path / "cells").glob(f"*/seed-*/{name}")):
        arm, seed = path.parent.parent.name, path.parent.name.removeprefix("seed-")
        curves.setdefault(arm, {})[seed] = read_rows(run, path.relative_to(run.path).as_posix())
    if not curves:
        run.problems[name] = f"No arm has left a {name}."
    named = [arm for arm in arms if arm in curves]
    return {arm: curves[arm] for arm in [*named, *sorted(set(curves) - set(named))]}


def _config(run: RunData) -> tuple[dict[str, Any], str]:
    path = run.path / "config.yaml"
    if not path.is_file():
        run.problems["config.yaml"] = "config.yaml is not there."
        return {}, ""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        run.problems["config.yaml"] = "config.yaml is damaged."
        return {}, text
    return config if isinstance(config, dict) else {}, text


def _put_taus(config: dict[str, Any], found: Sequence[dict[str, Any]]) -> None:
    """Put the numbers that the run found in the place of every `tau: auto`."""
    taus = {row["false_alarm"]: row["tau"] for row in found}
    for arm in (config.get("arms") or {}).values():
        params = arm.get("params") or {}
        if params.get("tau") == "auto":
            params["tau"] = taus.get(params.pop("false_alarm", FALSE_ALARM))


def _put_schedule(config: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Put the numbers that the run found in the place of `auto` in its training settings; return those that it put."""
    training = config.get("training")
    given = training if isinstance(training, dict) else {}
    put = {key: found[key] for key in SCHEDULED if given.get(key) == "auto" and isinstance(found.get(key), int | float)}
    given.update(put)
    return put


def _metrics(run: RunData) -> dict[str, dict[str, list[dict[str, Any]]]]:
    curves: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in sorted((run.path / "cells").glob("*/seed-*/metrics.jsonl")):
        arm, seed = path.parent.parent.name, path.parent.name.removeprefix("seed-")
        rows = read_rows(run, path.relative_to(run.path).as_posix())
        validations = path.with_name("validation.jsonl").relative_to(run.path)
        rows += read_rows(run, validations.as_posix()) if (run.path / validations).is_file() else []
        curves.setdefault(arm, {})[seed] = rows
    if not curves and (run.path / "metrics.jsonl").is_file():
        objective = run.config.get("objective")
        arm = str(objective.get("name", "this run")) if isinstance(objective, dict) else "this run"
        curves[arm] = {str(run.config.get("seed", "")): read_rows(run, "metrics.jsonl")}
    return curves
