"""The rows of a knowledge update: what is trained on, what is rehearsed, and what is asked before and after."""

import math
from dataclasses import dataclass, field

from equipoise.data.loading import check_disjoint, check_form, load_examples
from equipoise.evaluation.functions import FunctionTask, load_functions
from equipoise.evaluation.held_out import load_texts
from equipoise.evaluation.knowledge import Task, item_of
from equipoise.pipelines.settings import ArmSettings, DataSettings, KnowledgeUpdateRecipe, ProtocolRecipe
from equipoise.records import Example, HeldOutText
from equipoise.testbed.examples import TESTBED, load_facts
from equipoise.training.settings import TrainSettings


@dataclass(frozen=True)
class KnowledgeData:
    """The rows of one recipe, with what was left out and a hash for each source.

    Attributes:
        keep: what locality is measured on.
        rehearsed: what an arm that rehearses trains on beside the updates.
        phrasings: how many phrasings of an update are trained on.
        texts: what drift is measured on.
        functions: heads of functions to complete, scored by unit tests.
    """

    updates: list[Example]
    keep: list[Example]
    skills: list[Example]
    notes: list[str]
    hashes: dict[str, str]
    rehearsed: list[Example] = field(default_factory=list)
    phrasings: int = 1
    texts: list[HeldOutText] = field(default_factory=list)
    functions: list[FunctionTask] = field(default_factory=list)


def load_data(settings: DataSettings) -> KnowledgeData:
    """Read the three sources of a recipe.

    Raises:
        UserError: a source cannot be read, or an update is among the rows to keep.
    """
    rows: dict[str, list[Example]] = {}
    notes: list[str] = []
    hashes: dict[str, str] = {}
    for kind in ("updates", "keep", "skills"):
        source = getattr(settings, kind)
        if source is None:
            rows[kind] = []
        elif source.startswith(TESTBED):
            rows[kind], hashes[kind] = load_facts(source, ask=settings.ask)
        else:
            loaded = load_examples(source, max_bad_share=settings.max_bad_share)
            rows[kind], hashes[kind] = loaded.examples, loaded.sha256
            check_form(loaded.examples, settings.ask, source)
            notes += [f"{kind}: {note}" for note in loaded.notes]
            notes += [f"{kind}: line {row.line} left out: {row.reason}" for row in loaded.dropped]
    more = len(rows["updates"]) > (settings.limit or len(rows["updates"]))
    if more and settings.select is None and not settings.updates.startswith(TESTBED):
        notes.append(f"updates: the first {settings.limit} of {len(rows['updates'])} rows; data.limit=null takes all")
    if settings.select is None:  # else the model's answers decide which rows these are
        rows["updates"] = rows["updates"][: settings.limit]
    rows["keep"] = rows["keep"][: settings.keep_limit]
    check_disjoint(rows["updates"], rows["keep"])
    texts = load_texts(settings.held_out, max_bad_share=settings.max_bad_share)
    functions = load_functions(settings.functions) if settings.functions else None
    for kind, extra in (("held_out", texts if settings.held_out else None), ("functions", functions)):
        if extra is not None:
            hashes[kind] = extra.sha256
            notes += [f"{kind}: {note}" for note in extra.notes]
            notes += [f"{kind}: line {row.line} left out: {row.reason}" for row in extra.dropped]
    data = KnowledgeData(
        **rows,
        notes=notes,
        hashes=hashes,
        phrasings=settings.train_phrasings,
        texts=texts.texts,
        functions=functions.tasks if functions else [],
    )
    return _set_apart(data, settings.rehearse)


def _set_apart(data: KnowledgeData, rehearse: bool | str) -> KnowledgeData:
    """Choose the rows to keep that are rehearsed: all of them, or every second, which then measures nothing."""
    if rehearse == "half":
        return KnowledgeData(**{**vars(data), "rehearsed": data.keep[::2], "keep": data.keep[1::2]})
    return KnowledgeData(**{**vars(data), "rehearsed": data.keep if rehearse else []})


def tasks(data: KnowledgeData) -> list[Task]:
    """List the questions: is it corrected, does that generalise, did related facts stay, did skills stay."""
    held_out = [
        item_of(row, i)
        for row in data.updates
        for i in range(trained_phrasings(row, data.phrasings), 1 + len(row.rephrasings))
    ]
    return [
        Task("correction", tuple(item_of(row) for row in data.updates)),
        Task("generalisation", tuple(held_out)),
        Task("locality", tuple(item_of(row) for row in data.keep)),
        Task("retention", tuple(item_of(row) for row in data.skills)),
    ]


def trained_phrasings(row: Example, wanted: int) -> int:
    """Return how many phrasings of a row are trained on: at most `wanted`, and one at least is held out if it can."""
    return max(min(wanted, len(row.rephrasings)), 1)


def rehearses(recipe: KnowledgeUpdateRecipe, arm: ArmSettings | None) -> bool:
    """Tell whether an arm trains on the rehearsed rows; without an arm, whether any arm does."""
    arms = [arm] if arm else recipe.arms.values() if isinstance(recipe, ProtocolRecipe) else [recipe.objective]
    wanted = bool(recipe.data.rehearse or recipe.data.rehearse_general)
    return any(wanted if each.rehearse is None else each.rehearse for each in arms)


def training_rows(recipe: KnowledgeUpdateRecipe, data: KnowledgeData, arm: ArmSettings | None = None) -> list[Example]:
    """List what an arm trains on: the updates in each trained phrasing, and the rows that it rehearses.

    Args:
        arm: without one, what the arm with most rows trains on.
    """
    rows = []
    for row in data.updates:
        rows.append(row)
        for i in range(1, trained_phrasings(row, data.phrasings)):
            messages = [*item_of(row, i).conversation, row.messages[-1]]
            rows.append(row.model_copy(update={"id": f"{row.id}~{i}", "messages": messages}))
    return rows + (data.rehearsed if rehearses(recipe, arm) else [])


def step_count(recipe: KnowledgeUpdateRecipe, data: KnowledgeData, arm: ArmSettings | None = None) -> int:
    """Count the optimizer steps of one run, for progress; packing makes them fewer."""
    epochs = recipe.training.epochs
    assert epochs != "auto"  # settled before anything is counted
    return steps_of_an_epoch(len(training_rows(recipe, data, arm)), recipe.training) * epochs


def steps_of_an_epoch(rows: int, settings: TrainSettings) -> int:
    """Count the optimizer steps that so many rows take once through, unless they are packed."""
    return math.ceil(math.ceil(rows / settings.batch_size) / settings.gradient_accumulation)
