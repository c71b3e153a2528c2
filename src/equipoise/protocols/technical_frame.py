"""What stands before and after the sections of the technical report: in short, what was run, limits, commands."""

import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

from equipoise.protocols import technical_figures as drawn
from equipoise.protocols.definitions import PROTOCOLS
from equipoise.protocols.markdown import bullets, markdown_table, one_line
from equipoise.protocols.published import orders, published
from equipoise.protocols.technical_figures import Figures
from equipoise.protocols.technical_sections import Finished, place
from equipoise.protocols.wording import count, difference, interval, p_value
from equipoise.report.page import mapping
from equipoise.report.synthetic_reading import SyntheticRun
from equipoise.report.synthetic_words import findings
from equipoise.report.tables import TASK_WORDS

ABSOLUTE = re.compile(r"""(^|[=\[{,:\s'"])(/|~|[A-Za-z]:\\)""")


def short(done: Sequence[Finished]) -> list[str]:
    """Every claim with its verdict, and the answers of what tests no claim."""
    rows = []
    for one in done:
        for claim in one.analysis.get("hypotheses", []):
            gap = "–"
            if claim["estimate"] is not None:
                gap = difference(claim["estimate"], share=True) + interval(claim["ci"], share=True)
            p = p_value(claim["p_holm"]) if claim["p_holm"] is not None else "–"
            rows.append([claim["id"], claim["claim"], claim["verdict"], gap, p])
    head = ["", "claim", "verdict", "difference", "p for the claim (one-sided), after Holm"]
    parts = [markdown_table(head, rows)] if rows else []
    said = [f"**{one.title.split(':')[0]}.** {sentence}" for one in done for sentence in _answers(one)]
    return parts + ([bullets(said)] if said else [])


def _answers(one: Finished) -> list[str]:
    """What a run says beside its claims."""
    if isinstance(one.found, SyntheticRun):
        return [row.sentence for row in findings(one.found)]
    if one.kind == "frontier":
        return [row["sentence"] for row in one.analysis["answers"]]
    found = orders(one.analysis, published()[one.kind])
    return [f"Beside the published report: {found.sentence}"] if found.pairs else []


def what_was_run(done: Sequence[Finished]) -> list[str]:
    """Models, sizes, time, revisions, versions, and what the tasks mean."""
    rows = []
    for one in done:
        manifest, config = one.run.manifest, one.run.config
        model = f"`{place(mapping(config.get('model')).get('path'))}`"
        seconds = sum(row.get("seconds", 0.0) for row in one.cells)
        took = f"{seconds / 60:.1f} min" if one.cells else "–"
        grid = f"{count(len(one.analysis['arms']), 'arm')}, {count(len(one.seeds), 'seed')}"
        where = f"{manifest.get('device', '–')}, {count(manifest['cpus'], 'core')}" if manifest.get("cpus") else "–"
        commit = manifest.get("commit")
        rows.append([one.title, model, grid, str(len(one.cells)), took, where, f"`{commit[:12]}`" if commit else "–"])
    head = ["", "model", "grid", "cells", "time of all cells", "on", "source revision"]
    tasks = {task for one in done for task in one.analysis.get("tasks", one.analysis.get("n", []))}
    words = [f"*{task}*: {said}" for task, said in TASK_WORDS.items() if task in tasks]
    versions = dict.fromkeys(_versions(one) for one in done)
    parts = [markdown_table(head, rows), bullets(words)] if words else [markdown_table(head, rows)]
    return [*parts, *(f"Versions: {said}." for said in versions if said)]


def _versions(one: Finished) -> str:
    found = dict(mapping(one.run.manifest.get("versions")))
    python = {"python": one.run.manifest["python"]} if one.run.manifest.get("python") else {}
    return ", ".join(f"{name} {version}" for name, version in {**python, **found}.items())


def detection(done: Sequence[Finished], figures: Figures) -> list[str]:
    """How well the shock ratio finds what the testbed knows to be a conflict, by the first run that has it."""
    run = next((one.run for one in done if one.run.detection), None)
    found = run.detection if run else None
    if not run or not found:
        return []
    sides = [(word, found[f"by_{word}"]) for word in ("token", "fact") if f"by_{word}" in found]
    rows = []
    for word, side in sides:
        n = f"{side['n_true']} of {side['n']}" if "n_true" in side else "–"
        scores = [_precision(side), _precision(side.get("nll_only") or {}), f"{side['chance']:.3f}"]
        rows.append([f"by {word}", n, *scores])
    head = ["", "conflicts", "shock", "nll alone", "chance"]
    at = [_at_tau(word, side["at_tau"]) for word, side in sides if side.get("at_tau")]
    return [
        "## Does the shock ratio find the conflicts?",
        "What the model is confidently wrong about is known by how it was taught. Average precision with 95% interval:",
        markdown_table(head, rows),
        *([bullets(at)] if at else []),
        drawn.detection(figures, run),
    ]


def _precision(row: dict[str, Any]) -> str:
    if row.get("average_precision") is None:
        return "–"
    ci = row.get("average_precision_ci")
    return f"{row['average_precision']:.3f}" + (f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else "")


def _at_tau(word: str, row: dict[str, Any]) -> str:
    return (
        f"By {word}, a threshold of {row['threshold']:g} flags {row['flagged']}: precision {row['precision']:.2f}, "
        f"recall {row['recall']:.2f}."
    )


def limits(done: Sequence[Finished]) -> list[str]:
    """Say what the runs do not show, each sentence by what their files hold."""
    single = [one for one in done if one.kind in PROTOCOLS]
    models = ", ".join(sorted({f"`{place(mapping(one.run.config.get('model')).get('path'))}`" for one in done}))
    untested = [row["id"] for one in single for row in one.analysis["hypotheses"] if row["p"] is None]
    missing = [f"{_listed([one])}: {', '.join(arms)}" for one in single if (arms := _not_measured(one))]
    revisions = {one.run.manifest.get("commit") for one in done}
    lines = [f"Models trained: {models}. Nothing here speaks of others.", *_seeds(done)]
    lines += _rates(single, frontier=any(one.kind == "frontier" for one in done)) if single else []
    lines += _vocabulary(done)
    lines += [f"Claims without a test: {', '.join(untested)}."] if untested else []
    lines += _same_items(single)
    lines += ["p-values are adjusted within a protocol, not over protocols."] if len(single) > 1 else []
    lines += [f"Published arms that were not run: {'; '.join(missing)}."] if missing else []
    return lines + (["The runs were made by different revisions of the source."] if len(revisions) > 1 else [])


def _seeds(done: Sequence[Finished]) -> list[str]:
    lines = []
    for n in sorted({len(one.seeds) for one in done}):
        runs = _listed([one for one in done if len(one.seeds) == n])
        tested = "the base model is the same in all" if n > 1 else "what another would give is not known"
        lines.append(f"{count(n, 'seed').capitalize()} of training ({runs}): {tested}.")
    return lines


def _rates(single: Sequence[Finished], *, frontier: bool) -> list[str]:
    rates = {_listed([one]): mapping(one.run.config.get("training")).get("learning_rate") for one in single}
    said = ", ".join(f"{name} {rate:g}" for name, rate in rates.items() if rate is not None)
    apart = " there; the frontier is what separates the two." if frontier else "."
    return [
        f"All arms of a protocol have one learning rate ({said}), so a method is not told from its step size{apart}"
    ]


def _vocabulary(done: Sequence[Finished]) -> list[str]:
    sizes = sorted({row["vocab_size"] for one in done for row in one.cells if row.get("vocab_size")})
    return [
        f"With {size:,} tokens in the vocabulary, a perfectly calibrated token has a shock near ln V = "
        f"{math.log(size):.1f}; a lower threshold flags tokens that are merely uncertain."
        for size in sizes
    ]


def _same_items(single: Sequence[Finished]) -> list[str]:
    groups: dict[str, list[Finished]] = {}
    for one in single:
        groups.setdefault(str(one.run.config.get("data")), []).append(one)
    return [
        f"{_listed(group)} train on and ask the same items: their results are not independent of each other."
        for group in groups.values()
        if len(group) > 1
    ]


def _not_measured(one: Finished) -> list[str]:
    named = {arm for by_arm in published()[one.kind].values() if isinstance(by_arm, dict) for arm in by_arm}
    return sorted(named - set(one.analysis["arms"]))


def _listed(runs: Sequence[Finished]) -> str:
    return ", ".join(one.key.upper() if len(one.kind) == 1 else one.key for one in runs)


def commands(done: Sequence[Finished]) -> list[str]:
    """The calls that make the runs and this report again."""
    folders = [f"runs/protocol-{one.key}" for one in done]
    lines = [_command(one, folder) for one, folder in zip(done, folders)]
    lines.append(f"equipoise protocol report {' '.join(folders)} --out docs/REPORT.md")
    return ["```sh\n" + "\n".join(lines) + "\n```", "A call that is repeated goes on where it was cut off."]


def _command(one: Finished, folder: str) -> str:
    """The call that made a run, into a folder of its own; by its recipe, where the call would not work elsewhere."""
    words = iter(map(one_line, (one.run.manifest.get("command") or [])[1:]))
    kept = []
    for word in words:
        if word in ("--out", "-o"):
            next(words, None)
        elif not word.startswith("--out="):
            kept.append(word)
    if not kept or kept[0] not in ("protocol", "run", "demo") or any(map(ABSOLUTE.search, kept)):
        return f"equipoise run config.yaml --out {folder}    # config.yaml: that of the run"
    return shlex.join(["equipoise", *kept, "--out", folder])
