"""The sections of the technical report, one for each kind of run: set-up, verdicts, tables, figures. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.protocols import technical_figures as drawn
from equipoise.protocols.definitions import PROTOCOLS
from equipoise.protocols.markdown import bullets, markdown_table
from equipoise.protocols.published import COLUMNS, cells_of, compared, orders, published, setup
from equipoise.protocols.summary import means, verdicts
from equipoise.protocols.technical_figures import Figures
from equipoise.protocols.wording import count, difference, interval, number, p_value
from equipoise.report import frontier, synthetic_tables
from equipoise.report.arms import FORMULAS, weighting_of
from equipoise.report.frontier import FrontierRun
from equipoise.report.page import mapping
from equipoise.report.reading import RunData
from equipoise.report.synthetic_reading import SyntheticRun
from equipoise.report.synthetic_words import findings
from equipoise.report.tables import TASK_WORDS, Verdict, item_counts

ATTACHABLE = ("eaft", "focal", "r-eaft", "r-eaft-tail", "r-eaft-recent")  # the others are constant by definition
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        kind: the letter of a protocol, `frontier` or `curriculum`.
        key: the kind, with a number where several runs are of one kind; it names figures.
        title: of its section.
        cells: rows of `cells.jsonl`.
    """

    found: RunData | FrontierRun | SyntheticRun
    kind: str
    key: str
    title: str
    cells: list[dict[str, Any]]

    @property
    def run(self) -> RunData:
        return self.found if isinstance(self.found, RunData) else self.found.run

    @property
    def analysis(self) -> dict[str, Any]:
        return self.found.analysis or {}

    @property
    def seeds(self) -> list[Any]:
        return self.analysis["seeds"]


def section(done: Finished, figures: Figures) -> list[str]:
    """Write the section of a run as blocks of Markdown; its figures go to `figures`."""
    if isinstance(done.found, FrontierRun):
        return _frontier(done, done.found, figures)
    if isinstance(done.found, SyntheticRun):
        return _curriculum(done, done.found)
    return _comparison(done, done.found, figures)


def _comparison(done: Finished, run: RunData, figures: Figures) -> list[str]:
    analysis = done.analysis
    parts = [f"## {done.title}", PROTOCOLS[done.kind].question, *_setup(done, list(analysis["arms"]))]
    parts += ["### Verdicts", verdicts(analysis), "### Results"]
    parts += ["Mean over seeds with 95% interval, and s², the sample variance.", means(analysis, item_counts(run))]
    parts += drawn.trade_offs(figures, done.key, run)
    heard = drawn.mechanism(figures, done.key, run) + drawn.curves(figures, done.key, run)
    parts += ["### What each arm listens to", *heard] if heard else []
    parts += _published(done)
    return parts + (["### Notes", bullets(analysis["notes"])] if analysis["notes"] else [])


def _published(done: Finished) -> list[str]:
    theirs = published()[done.kind]
    rows, found = compared(done.analysis, theirs), orders(done.analysis, theirs)
    parts = ["### Beside the published report", f"{setup(done.run.config)} Published: {theirs['note']}."]
    for task in dict.fromkeys(row["task"] for row in rows):
        parts += [f"{task}:", markdown_table(COLUMNS, [cells_of(row) for row in rows if row["task"] == task])]
    if found.pairs:
        parts.append(f"{found.sentence} Tests are two-sided, Holm-adjusted over all pairs of a task, at 5%.")
    return parts + ([bullets(found.contrary)] if found.contrary else [])


def _setup(done: Finished, arms: Sequence[str]) -> list[str]:
    """Say what was trained on what, and list the arms with their objectives."""
    config = done.run.config
    weightings = {arm: weighting_of(config, arm) for arm in arms}
    recipe = mapping(config.get("arms"))
    rows = []
    for arm, weighting in weightings.items():
        own = mapping(recipe.get(arm))
        params = ", ".join(f"{name} {value:g}" for name, value in weighting.params.items())
        attached = weighting.name in ATTACHABLE and not own.get("detach_weights", True)
        held = "attached" if attached else "constant"
        rows.append([arm, weighting.name, params or "–", held, _beside(own)])
    used = {weighting.name: FORMULAS[weighting.name] for weighting in weightings.values() if weighting.name in FORMULAS}
    return [
        "### Set-up",
        bullets(_training(config)),
        markdown_table(["arm", "objective", "parameters", "weights in the gradient", "beside the objective"], rows),
        "Weights of a token:",
        bullets(f"{name}: {formula}" for name, formula in used.items()),
    ]


def _beside(arm: Row) -> str:
    """Name what goes with an arm's objective."""
    notes = ["every second row to keep is trained on"] if arm.get("rehearse") else []
    notes += ["a stopping rule ends it"] if arm.get("stopping") is not None else []
    notes += ["loss divided by the sum of weights"] if arm.get("normalize") == "weights" else []
    own = ", ".join(f"{rate:g}" for rate in arm.get("learning_rates") or [])
    notes += [f"learning rates {own}"] if own else []
    return ", ".join(notes) or "–"


def place(source: Any) -> str:
    """Name a model or data; of a path on a disk the last part alone."""
    return Path(str(source)).name if Path(str(source)).is_absolute() else str(source)


def _training(config: Row) -> list[str]:
    """Say what was trained on what, as far as the recipe tells."""
    data, training = mapping(config.get("data")), mapping(config.get("training"))
    limit = f" (the first {data['limit']})" if data.get("limit") else ""
    parts = {"updates": f"updates %s{limit}", "keep": "rows to keep %s", "skills": "skills %s"}
    named = [text % f"`{place(data[part])}`" for part, text in parts.items() if data.get(part)]
    trained = "Updates and rows to keep are trained on." if data.get("rehearse") else "The updates are trained on."
    lines = [f"Data: {', '.join(named)}. {trained}"] if named else []
    epochs = max(config["score_at"]) if config.get("score_at") else training.get("epochs")
    rates = ", ".join(f"{rate:g}" for rate in config.get("learning_rates") or [training.get("learning_rate")] if rate)
    how = [f"{epochs} epochs"] if epochs else []
    how += [f"learning rate {rates}"] if rates else []
    how += [f"{training['scheduler']} schedule"] if training.get("scheduler") else []
    how += [f"batches of {training['batch_size']}"] if training.get("batch_size") else []
    if "lora" in training:
        lora = training["lora"]
        how.append(f"LoRA of rank {lora['r']}, alpha {lora['alpha']:g}" if lora else "all weights")
    lines += [f"Training: {', '.join(how)}."] if how else []
    if config.get("score_at"):
        lines.append("Each training is scored after epochs " + ", ".join(map(str, config["score_at"])) + ".")
    return [*lines, "Seeds: " + ", ".join(map(str, config.get("seeds") or [])) + "."]


def _frontier(done: Finished, found: FrontierRun, figures: Figures) -> list[str]:
    analysis = done.analysis
    parts = [
        f"## {done.title}",
        "At equal correction, which method keeps most? Every arm is trained at every learning rate and scored after "
        "several epochs; of its settings that correct at least a level, the one that keeps most is chosen on one half "
        "of the items and read on the other.",
        *_setup(done, list(analysis["arms"])),
        "### Answers",
        bullets(f"**{row['task']}:** {row['sentence']}" for row in analysis["answers"]),
        *([bullets(analysis["notes"])] if analysis.get("notes") else []),
        "### What is kept at matched correction",
    ]
    seeds, head = (
        len(done.seeds),
        ["arm", *(f"at {100 * level:g}% corrected" for level in analysis["levels"]), "hypervolume"],
    )
    for task in analysis["kept"]:
        columns = {arm: [*row["matched"][task], row["hypervolume"][task]] for arm, row in analysis["arms"].items()}
        about = f"{TASK_WORDS[task]}; {analysis['n'][task]} items, untrained {100 * analysis['untrained'][task]:.1f}%"
        parts += [
            f"**{task}** ({about}), share kept:",
            markdown_table(head, [[arm, *(_kept(row, seeds) for row in rows)] for arm, rows in columns.items()]),
            f"Difference to {analysis['against']}:",
            markdown_table(
                head, [[arm, *map(_gap, rows)] for arm, rows in columns.items() if arm != analysis["against"]]
            ),
        ]
    parts += [
        "Intervals are 95%, as wide as those over seeds and items drawn anew and as those of Student's t over seeds; "
        "in round brackets what the chosen settings correct on "
        "average. Differences are paired; p is Holm-adjusted over the arms. An arm has a number only where every seed "
        "reaches the level. Hypervolume is the area under an arm's front; it grows with the number of settings.",
        drawn.fronts(figures, done.key, found),
        "Light marks: every seed and setting. Lines: each arm's front, by means over seeds. Dotted: the levels.",
        "Settings on each arm's front, by means over seeds (learning rate, epochs: corrected / kept):",
    ]
    settings = {(row["arm"].name, row["task"]): "; ".join(row["rows"]) for row in frontier.fronts(found)}
    rows = [[arm, *(settings[arm, task] for task in analysis["kept"])] for arm in analysis["arms"]]
    return [*parts, markdown_table(["arm", *analysis["kept"]], rows)]


def _kept(row: Row, seeds: int) -> str:
    if row["mean"] is None:
        return f"not reached ({row['reached']} of {count(seeds, 'seed')})"
    corrected = f" ({number(row['corrected'], share=True)})" if "corrected" in row else ""
    return number(row["mean"], share=True) + interval(row["ci"], share=True) + corrected


def _gap(row: Row) -> str:
    gap = row.get("against")
    if not gap:
        return "–"
    text = difference(gap["estimate"], share=True) + interval(gap["ci"], share=True)
    return text if gap["p"] is None else f"{text}, {p_value(gap['p_holm'])}"


def _curriculum(done: Finished, found: SyntheticRun) -> list[str]:
    analysis = done.analysis
    n = ", ".join(f"{items} {domain}" for domain, items in analysis["n"].items())
    rows = synthetic_tables.arms(found)
    head = ["arm", "what it does", *(cell["label"] for cell in rows[0]["cells"])]
    parts = [
        f"## {done.title}",
        "Which way of learning from a model's own labels gains most in the new domain, and what does the old one lose?",
        "### Verdicts",
        bullets(map(_finding, findings(found))),
        "### Results",
        f"Entity F1 on test sentences ({n}) of {count(len(done.seeds), 'seed')}, with 95% intervals; changes in points "
        "from the untrained model.",
        markdown_table(head, [[row["arm"], row["words"], *map(_spread, row["cells"])] for row in rows]),
    ]
    against = synthetic_tables.contrasts(found)
    if against:
        head = [f"{found.primary} against", *(cell["label"] for cell in against[0]["cells"]), ""]
        parts.append(markdown_table(head, [[r["against"], *map(_spread, r["cells"]), r["word"]] for r in against]))
    return parts + ([bullets(analysis["warnings"])] if analysis["warnings"] else [])


def _finding(verdict: Verdict) -> str:
    details = f" ({verdict.details})" if verdict.details else ""
    return f"**{verdict.claim} {verdict.word}.** {verdict.sentence}{details}"


def _spread(cell: Row) -> str:
    return f"{cell['text']} [{cell['range']}]" if cell["range"] else cell["text"]
