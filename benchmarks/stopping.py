#!/usr/bin/env python3
"""Stopping rules on simulated loss curves: the loss they give away and the compute they use.

Every rule keeps the model of its best observed validation; *excess* is that model's true loss above the lowest of any
validation of the whole run, in shares of a curve's whole fall; *compute* is the share of the steps that were trained.
Parameters are chosen on seeds 0-39 (`--tune`: the lowest mean over all kinds of excess + 0.02 x compute, for every rule
alike) and reported on seeds 2000-2199.

    python benchmarks/stopping.py                       # the tables and the plot of docs/stopping.md
    python benchmarks/stopping.py --tune                # prints the best settings on the tuning seeds
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stopping_curves import EPOCH, EVERY, KINDS, STEPS, Curve, curve
from stopping_rivals import GeneralisationLoss, Patience, ProgressQuotient, Ups

from equipoise.schedules.stopping import Stopping, StoppingSettings

DOCS = Path(__file__).parents[1] / "docs"
TUNING, REPORTED = range(40), range(2000, 2200)
UNSEEN = "step-down"  # left out of the choice: before the step it is a plateau, so only waiting for ever pays
PRICE = 0.02  # what a whole run's compute is worth, in shares of the whole fall of the loss

Rule = Callable[[Curve], int]  # the step after which it stops


class Score(NamedTuple):
    """What one run gave away, what it used, and why it ended."""

    excess: float
    compute: float


def ours(**settings: Any) -> Rule:
    """The project's rule; it sees every step's loss and every example's validation loss."""

    def run(c: Curve) -> int:
        state = Stopping(StoppingSettings(**settings), total_tokens=int(c.tokens[:EPOCH].sum()))
        losses, tokens = c.train.tolist(), c.tokens.tolist()
        for i in range(STEPS):
            verdict = state.add(i + 1, losses[i], tokens[i], tokens[i] if i < EPOCH else 0)
            if (i + 1) % EVERY == 0:
                verdict = state.validate(i + 1, c.examples[i // EVERY]) or verdict
            if verdict is not None and verdict.action == "stop":
                return i + 1
        return STEPS

    return run


def rival(kind: Callable[..., Any], **settings: Any) -> Rule:
    """A rule that sees the mean of each validation and the training losses of the strip before it."""

    def run(c: Curve) -> int:
        state, means = kind(**settings), c.examples.mean(1)
        for i, loss in enumerate(means):
            if state.validate(float(loss), c.train[i * EVERY : (i + 1) * EVERY]):
                return (i + 1) * EVERY
        return STEPS

    return run


def never(c: Curve) -> int:
    """The whole run."""
    return STEPS


USUAL: dict[str, Rule] = {
    "to the end": never,
    "equipoise": ours(),
    "patience 3": rival(Patience),
    "min-delta 0.01": rival(Patience, min_delta=0.01),
    "GL 5": rival(GeneralisationLoss, alpha=5),
    "PQ 0.5": rival(ProgressQuotient, alpha=0.5),
    "UP 3": rival(Ups, strips=3),
}
TUNED: dict[str, Rule] = {  # as `--tune` chose; ours are the defaults
    "to the end": never,
    "equipoise": ours(),
    "patience 5": rival(Patience, patience=5),
    "patience 8, min-delta 0.005": rival(Patience, patience=8, min_delta=0.005),
    "GL 2": rival(GeneralisationLoss, alpha=2),
    "PQ 0.1": rival(ProgressQuotient, alpha=0.1),
    "UP 3": rival(Ups, strips=3),
}


def score(rule: Rule, c: Curve) -> Score:
    """Run a rule over one curve."""
    stopped = rule(c)
    reached = max(stopped // EVERY, 1)  # a rule that stops before the first validation keeps the model of that one
    kept = int(c.examples[:reached].mean(1).argmin())
    return Score(float(c.truth[kept] - c.truth.min()), stopped / STEPS)


def scores(rule: Rule, curves: Iterable[Curve]) -> np.ndarray:
    """Excess and compute of each curve [n, 2]."""
    return np.array([score(rule, c) for c in curves])


# ---- choosing parameters


def grids() -> Iterator[tuple[str, Callable[..., Rule], list[dict[str, Any]]]]:
    """Each rule with the settings to choose from."""

    def grid(**options: Iterable[Any]) -> list[dict[str, Any]]:
        return [dict(zip(options, values)) for values in itertools.product(*options.values())]

    def of(kind: Callable[..., Any]) -> Callable[..., Rule]:
        return lambda **settings: rival(kind, **settings)

    yield "patience", of(Patience), grid(patience=[2, 3, 5, 8, 12])
    yield "min-delta", of(Patience), grid(patience=[2, 3, 5, 8, 12], min_delta=[0.002, 0.005, 0.01, 0.02, 0.05])
    yield "GL", of(GeneralisationLoss), grid(alpha=[0.25, 0.5, 1, 2, 3, 5, 10])
    yield "PQ", of(ProgressQuotient), grid(alpha=[0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2, 3])
    yield "UP", of(Ups), grid(strips=[1, 2, 3, 4, 5, 6, 8])
    every = grid(
        delta=[0.01, 0.02, 0.03, 0.05],
        z=[1.0, 1.645],
        unsure=[1.0, 1.5, 2.0, 3.0, 5.0],
        checks=[2, 3, 5],
        k=[1.0, 2.0, 3.0],  # more would let noise that is large beside the fall cause a stop
        block=[4, 8],
        rises=[1, 2, 3],
        rise_z=[1.645, 2.5],
        window=[0.25, 0.33],
    )
    rng = np.random.default_rng(0)
    yield "equipoise", ours, [every[i] for i in rng.choice(len(every), 150, replace=False)]


def tune() -> None:
    """Print the five best settings of each rule on the tuning seeds."""
    curves = {kind: [curve(kind, seed) for seed in TUNING] for kind in KINDS}
    for name, make, options in grids():
        found = []
        for settings in options:
            means = {kind: scores(make(**settings), curves[kind]).mean(0) for kind in KINDS}
            judged = np.array([means[kind] for kind in KINDS if kind != UNSEEN])
            found.append((float((judged[:, 0] + PRICE * judged[:, 1]).mean()), settings, means))
        found.sort(key=lambda row: row[0])
        for cost, settings, means in found[:5]:
            print(f"{name}: {cost:.5f} {settings}")
            print("    " + "  ".join(f"{k} {e:.3f}/{c:.2f}" for k, (e, c) in means.items()), flush=True)


# ---- what is reported


def table(found: dict[str, dict[str, np.ndarray]]) -> str:
    """Mean excess in % of the whole fall with its 95% interval, and mean compute in %, as Markdown."""
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for kind, words in KINDS.items():
        lines.append(f"| {words} | " + " | ".join(cell(rows[kind]) for rows in found.values()) + " |")
    for words, kinds in (("all but the step down", [k for k in KINDS if k != UNSEEN]), ("all", list(KINDS))):
        together = [np.concatenate([rows[kind] for kind in kinds]) for rows in found.values()]
        lines.append(f"| **{words}** | " + " | ".join(cell(rows) for rows in together) + " |")
        worst = [f"{100 * np.quantile(rows[:, 0], 0.95):.1f}" for rows in together]
        lines.append(f"| {words}: 95th percentile of excess | " + " | ".join(worst) + " |")
        cost = [f"{100 * float((rows @ np.array([1, PRICE])).mean()):.2f}" for rows in together]
        lines.append(f"| {words}: excess + {PRICE} × compute | " + " | ".join(cost) + " |")
    return "\n".join(lines)


def cell(rows: np.ndarray) -> str:
    """One rule on one kind of curve."""
    excess, compute = 100 * rows.mean(0)
    half = 100 * 1.96 * rows[:, 0].std(ddof=1) / np.sqrt(len(rows))
    return f"{excess:.2f} ± {half:.2f} / {compute:.0f}"


def plot(usual: dict[str, Any], tuned: dict[str, Any], path: Path) -> None:
    """Compute against excess, a panel for each kind of curve; filled as usually set, open as tuned."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    from equipoise.report.svg import RC

    with plt.rc_context({**RC, "figure.facecolor": "white", "svg.hashsalt": "stopping"}):
        figure, axes = plt.subplots(2, 4, figsize=(12, 5.6), sharex=True)
        for ax, (kind, words) in zip(axes.flat, KINDS.items()):
            for rules, filled in ((usual, True), (tuned, False)):
                for i, rows in enumerate(rules.values()):
                    excess, compute = 100 * rows[kind].mean(0)
                    face = f"C{i}" if filled else "none"
                    ax.plot(compute, excess, "*s^Dovp"[i], color=f"C{i}", markerfacecolor=face, markersize=8)
            ax.set_title(words, fontsize=9)
            top = max(100 * rows[kind][:, 0].mean() for rows in (*usual.values(), *tuned.values()))
            ax.set(xlim=(0, 105), ylim=(0, 1.15 * top))
        figure.supxlabel("compute used, % of the whole run")
        figure.supylabel("excess loss, % of the whole fall")
        names = ["to the end", "equipoise", "patience", "min-delta", "GL", "PQ", "UP"]
        marks = [Line2D([], [], color=f"C{i}", marker="*s^Dovp"[i], linestyle="") for i in range(len(names))]
        figure.legend(marks, names, loc="upper center", ncols=len(names), frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 0.94))
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def report() -> None:
    """Put the tables between the marks of docs/stopping.md, and the plot beside it."""
    curves = {kind: [curve(kind, seed) for seed in REPORTED] for kind in KINDS}
    rules = {**USUAL, **TUNED}  # those in both tables run once
    found = {name: {kind: scores(rule, curves[kind]) for kind in KINDS} for name, rule in rules.items()}
    usual, tuned = ({name: found[name] for name in chosen} for chosen in (USUAL, TUNED))
    page = DOCS / "stopping.md"
    text = page.read_text(encoding="utf-8")
    for marker, chosen in (("stopping-usual", usual), ("stopping-tuned", tuned)):
        start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
        before, _, rest = text.partition(start)
        text = before + start + table(chosen) + "\n" + end + rest.partition(end)[2]
    page.write_text(text, encoding="utf-8")
    plot(usual, tuned, DOCS / "images" / "stopping.svg")


def main() -> None:
    """Report, or choose parameters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="choose parameters on the tuning seeds")
    tune() if parser.parse_args().tune else report()


main()
