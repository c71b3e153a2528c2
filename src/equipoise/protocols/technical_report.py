"""The technical report: finished protocols as one Markdown document with its figures, every sentence from the runs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from equipoise.console import say
from equipoise.errors import UserError
from equipoise.journal import read_journal, write_atomic
from equipoise.protocols import technical_frame as frame
from equipoise.protocols.definitions import PROTOCOLS
from equipoise.protocols.markdown import bullets, text_only
from equipoise.protocols.technical_figures import FOLDER, Figures
from equipoise.protocols.technical_sections import Finished, section
from equipoise.protocols.wording import count
from equipoise.report.frontier import read_frontier_run
from equipoise.report.page import mapping
from equipoise.report.reading import RunData, open_run, read_run
from equipoise.report.synthetic_reading import read_synthetic_run
from equipoise.runs import Run

ORDER = (*PROTOCOLS, "frontier", "curriculum")
TITLES = {letter: protocol.title for letter, protocol in PROTOCOLS.items()} | {
    "frontier": "The frontier: at equal correction, which method forgets least?",
    "curriculum": "The curriculum: learning from own labels",
}
FILES = {"frontier": "frontier.json", "curriculum": "synthetic.json"}
AGAIN = "the call that made the run makes it again from what was measured"


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of finished protocols to `out`, its figures into `images` beside it, and return `out`.

    The same runs give the same bytes, in whatever order the folders are given.

    Raises:
        UserError: a folder holds no protocol, or one that is not finished.
    """
    if not folders:
        raise UserError("no run to report on", where="protocol report", fix="give the folders of finished protocols")
    done = read_finished(folders)
    figures = Figures()
    text = render(done, figures)
    for name, figure in figures.files.items():
        write_atomic(out.parent / FOLDER / name, figure)
    write_atomic(out, text)
    say(f"report: {out}, {count(len(figures.files), 'figure')} in {out.parent / FOLDER}")
    return out


def read_finished(folders: Sequence[Path]) -> list[Finished]:
    """Read runs, in the order in which the report has them.

    Raises:
        UserError: a folder holds no protocol, or one that is not finished.
    """
    once = {Path(path).resolve(): path for path in folders}.values()
    kinds = sorted(((_kind(path), path) for path in once), key=lambda one: (ORDER.index(one[0]), _identity(one[1])))
    several, seen = Counter(kind for kind, _ in kinds), Counter[str]()
    done = []
    for kind, path in kinds:
        seen[kind] += 1
        number = f"-{seen[kind]}" if several[kind] > 1 else ""
        title = TITLES[kind] + (f" ({seen[kind]})" if number else "")
        done.append(_read(path, kind, kind + number, title))
    return done


def _kind(path: Path) -> str:
    Run.open(path)
    config = open_run(path).config
    pipeline = config.get("pipeline", "knowledge_update")
    kind = {"frontier": "frontier", "synthetic_rl": "curriculum"}.get(pipeline, config.get("protocol"))
    if kind not in ORDER:
        known = ", ".join(ORDER)
        raise UserError(
            "this is no run of a protocol", where=str(path), fix=f"give folders of `equipoise protocol`: {known}"
        )
    return kind


def _identity(path: Path) -> str:
    """Order runs of one kind by what they are, not by where they lie."""
    return (path / "config.yaml").read_text(encoding="utf-8") + (path / "manifest.json").read_text(encoding="utf-8")


def _read(path: Path, kind: str, key: str, title: str) -> Finished:
    file = FILES.get(kind, "analysis.json")
    cells = read_journal(path / "cells.jsonl").rows if (path / "cells.jsonl").is_file() else []
    if not (path / file).is_file():
        raise UserError(
            f"this run is not finished: {len(cells)} {_of(open_run(path))}cells are done",
            where=str(path),
            fix="the same call that started it goes on with it",
        )
    readers = {"frontier": read_frontier_run, "curriculum": read_synthetic_run}
    found = readers.get(kind, read_run)(path)
    done = Finished(found, kind, key, title, cells)
    if not done.analysis:
        raise UserError(done.run.problems[file], where=str(path / file), fix=AGAIN)
    return done


def _of(run: RunData) -> str:
    """Say of how many cells, where the recipe tells: the untrained model is one."""
    if run.config.get("pipeline") == "synthetic_rl":
        return ""
    rates = run.config.get("learning_rates") or [None]
    arms = mapping(run.config.get("arms")).values() or [{}]
    settings = sum(len(mapping(arm).get("learning_rates") or rates) for arm in arms)
    return f"of {settings * len(run.config.get('seeds') or [None]) + 1} "


def render(done: Sequence[Finished], figures: Figures) -> str:
    """Write the document.

    Raises:
        UserError: an analysis does not hold what it should.
    """
    sections = [block for one in done for block in _section(one, figures)]
    parts = [
        "# Technical report",
        "What token-weighted training corrects, and what it costs, as measured by the protocols. This page is written "
        "by `equipoise protocol report` from the files of the runs, and so is every sentence on it.",
        "## In short",
        *frame.short(done),
        "## What was run",
        *frame.what_was_run(done),
    ]
    parts += [*sections, *frame.detection(done, figures)]
    parts += ["## Limits of the evidence", bullets(frame.limits(done)), "## How to reproduce", *frame.commands(done)]
    return text_only("\n\n".join(parts)) + "\n"


def _section(one: Finished, figures: Figures) -> list[str]:
    try:
        return section(one, figures)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        file = one.run.path / FILES.get(one.kind, "analysis.json")
        found = f"{type(error).__name__}: {error}"
        raise UserError(f"this does not have the expected form ({found})", where=str(file), fix=AGAIN) from error
