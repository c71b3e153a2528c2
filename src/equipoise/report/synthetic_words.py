"""What an adaptation to a new domain found, in sentences: what it gained, what it cost, and which arms it beats."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from equipoise.report.confidence_words import number, percent, with_interval
from equipoise.report.page import Verdict, mapping
from equipoise.report.synthetic_reading import UNTRAINED, SyntheticRun

LEVEL = 0.05
Relation = Literal["better", "worse", "open"]


def findings(found: SyntheticRun) -> list[Verdict]:
    """Give the findings that the run has the numbers for, those on the arm that was named beforehand first."""
    if not found.analysis:
        return []
    said = [_gained(found), _cost(found), _beats(found), _readable(found), _labels(found)]
    return [one for one in said if one]


def points(value: float) -> str:
    """Write a difference of shares: 0.061 is +6.1."""
    return f"{100 * value:+.1f}".replace("-", "−")


def difference(row: Mapping[str, Any], ends: str = "bootstrap") -> str:
    """Write a difference in points with its interval, where it has one."""
    interval = span(row, ends)
    return f"{points(row['estimate'])} points" + (f" [{interval.replace(' to ', ', ')}]" if interval else "")


def span(row: Mapping[str, Any], ends: str = "bootstrap", write: Callable[[float], str] | None = None) -> str:
    """Write the interval of a difference, by default in points; empty where it has none."""
    return "" if not row.get(ends) else " to ".join((write or points)(end) for end in row[ends])


def probability(p: float | None) -> str:
    """Write a p value."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def relation(row: Mapping[str, Any]) -> Relation:
    """Tell whether an arm is better or worse than another: the interval excludes 0, and so does the test by Holm."""
    ends, p = row.get("bootstrap"), row.get("p_holm")
    if not ends or p is None or p >= LEVEL:
        return "open"
    return "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "open"


def _change(found: SyntheticRun, domain: str) -> Mapping[str, Any]:
    return mapping(mapping(mapping(found.analysis.get("changes")).get(found.primary)).get(domain))


def _f1(found: SyntheticRun, arm: str, domain: str) -> Mapping[str, Any]:
    return found.analysis["scores"][arm][domain]["f1"]


def _gained(found: SyntheticRun) -> Verdict | None:
    row, arm = _change(found, "target"), found.primary
    if not row:
        return None
    kind, word = sign(row, "yes", "no, it fell", "no difference shown")
    before, after = (percent(_f1(found, name, "target")["mean"]) for name in (UNTRAINED, arm))
    sentence = f"Target F1 was {before} before training and is {after} after {arm}: {difference(row)}."
    return Verdict(f"Did {arm} improve the target domain?", kind, word, sentence, basis(row, f"{row['n']:,} sentences"))


def _cost(found: SyntheticRun) -> Verdict | None:
    row, arm = _change(found, "source"), found.primary
    if not row:
        return None
    kind, word = sign(row, "it gained", "it lost", "no change shown")
    before, after = (percent(_f1(found, name, "source")["mean"]) for name in (UNTRAINED, arm))
    sentence = f"Source F1 was {before} before training and is {after} after {arm}: {difference(row)}."
    if kind == "open" and row.get("bootstrap") and row["bootstrap"][0] < 0:
        sentence += f" A loss of up to {100 * -row['bootstrap'][0]:.1f} points is not ruled out."
    return Verdict("What did that cost on the source domain?", kind, word, sentence, _all_costs(found))


def _all_costs(found: SyntheticRun) -> str:
    each = {arm: by["source"] for arm, by in found.analysis["changes"].items() if by.get("source")}
    if len(each) < 2:
        return ""
    said = [f"{arm} {points(row['estimate'])}" for arm, row in each.items()]
    return f"Change of source F1, all arms, in points: {', '.join(said)}."


def sign(row: Mapping[str, Any], up: str, down: str, neither: str) -> tuple[str, str]:
    """Give kind and word by where the interval lies; one run alone gives no certain answer."""
    ends = row.get("bootstrap")
    if not ends or ends[0] <= 0 <= ends[1]:
        return "open", neither
    kind, word = ("yes", up) if ends[0] > 0 else ("no", down)
    return (kind, word) if row.get("seeds", 0) > 1 else ("open", f"{word}, in one run")


def basis(row: Mapping[str, Any], over: str, write: Callable[[float], str] | None = None) -> str:
    """Say what the interval of a difference draws anew: seeds and `over`, items in words; `write` is for its ends."""
    if row["seeds"] < 2:
        return f"The 95% interval draws {over} anew. One seed: another training run may differ by more."
    said = f"The 95% interval draws {row['seeds']} seeds and {over} anew."
    return said + (f" Over seeds alone: {span(row, 'ci', write)}, p {_is(row['p'])}." if row.get("ci") else "")


def _is(p: float | None) -> str:
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def _beats(found: SyntheticRun) -> Verdict | None:
    rows = [row for row in found.analysis.get("contrasts") or [] if row["against"] != UNTRAINED]
    if not rows:
        return None
    arm = found.primary
    told: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for row in rows:
        told[relation(row)].append(row["against"])
    kind = "no" if told["worse"] else "open" if told["open"] else "yes"
    word = {"yes": "better than all", "no": "it does not win", "open": "not against all"}[kind]
    said = [] if kind == "yes" else [f"{arm} does not win." if kind == "no" else f"It is not shown that {arm} wins."]
    for name, words in (("better", "Better than"), ("worse", "Worse than"), ("open", "Not told apart from")):
        said += [f"{words}: {', '.join(told[name])}."] if told[name] else []
    means = {name: _f1(found, name, "target")["mean"] for name in found.trained}
    best = max(means, key=lambda name: means[name])
    said.append(f"The highest mean target F1 has {best}, {percent(means[best])}" + (
        "." if best == arm else f"; {arm} has {percent(means[arm])}."
    ))  # fmt: skip
    claim = f"Is {arm}, named beforehand, better than the other ways to learn from the same labels?"
    return Verdict(claim, kind, word, " ".join(said), _rule(rows, found))


def _rule(rows: list[Mapping[str, Any]], found: SyntheticRun) -> str:
    if all(row.get("p_holm") is None for row in rows):
        return "One seed, so there is no test: nothing says how far another training run would lie from this one."
    n = len(found.analysis["contrasts"])
    return (
        f"Better or worse is said where p, corrected for {n} comparisons by Holm's method, is below {LEVEL:g} "
        "and the interval excludes 0."
    )


def _readable(found: SyntheticRun) -> Verdict | None:
    by_arm = mapping(found.analysis.get("scores"))
    if found.primary not in by_arm or UNTRAINED not in by_arm or found.primary == UNTRAINED:
        return None
    before, after = (by_arm[arm]["target"] for arm in (UNTRAINED, found.primary))
    change = after["valid"]["mean"] - before["valid"]["mean"]
    sentence = (
        f"{percent(before['valid']['mean'])} of answers on the target could be read as JSON before training, "
        f"{percent(after['valid']['mean'])} after; {percent(before['non_empty']['mean'])} named an entity before, "
        f"{percent(after['non_empty']['mean'])} after."
    )
    claim = "Are the answers still in the right form?"
    return Verdict(claim, "none", f"{points(change)} points", sentence)


def _labels(found: SyntheticRun) -> Verdict | None:
    account, quality = found.first_quality, mapping(found.first_quality.get("quality"))
    if quality.get("right") is None:
        return None
    sentence = f"{percent(quality['right'])} of {account['n']:,} pseudo-labels are exactly right"
    sentence += f" (F1 {percent(quality['f1'])})." if quality.get("f1") is not None else "."
    aurocs = {name: mapping(row.get("auroc")) for name, row in mapping(quality.get("signals")).items()}
    aurocs = {name: auroc for name, auroc in aurocs.items() if auroc.get("mean") is not None}
    used = next((name for name in ("calibrated", account.get("signal")) if name in aurocs), None)
    details = ""
    if used is not None:
        sentence += (
            f" The confidence that training goes by tells right labels from wrong ones with AUROC "
            f"{with_interval(aurocs[used], number)}; 0.5 is chance, 1 perfect."
        )
        each = ", ".join(f"{name} {number(auroc['mean'])}" for name, auroc in aurocs.items() if name != "calibrated")
        details = f"AUROC of each signal as it comes: {each}. The confidence is made of “{account.get('signal')}”."
    claim = "How good were the labels it learned from?"
    return Verdict(claim, "none", f"{percent(quality['right'])} right", sentence, details)
