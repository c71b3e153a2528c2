"""Single sentences of an adaptation: what the arm in question gained and lost, and its surest wrong labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equipoise.metrics.entities import answer
from equipoise.report.confidence_words import percent
from equipoise.report.synthetic_plots import is_graded, is_right
from equipoise.report.synthetic_reading import UNTRAINED, SyntheticRun

SHOWN, TEXT = 5, 260  # rows of a kind; characters of a sentence


@dataclass(frozen=True)
class Moved:
    """One test sentence before and after training."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def gain(self) -> float:
        """The sentence's F1 after training less that before."""
        return sentence_f1(self.after) - sentence_f1(self.before)


def sentence_f1(row: Mapping[str, Any]) -> float:
    """Give the F1 of one sentence; nothing to find and nothing found is 1."""
    whole = 2 * row["tp"] + row["fp"] + row["fn"]
    return 1.0 if whole == 0 else 2 * row["tp"] / whole


def examples(found: SyntheticRun) -> list[dict[str, Any]]:
    """Give, for the first seed, the sentences whose answers changed most: better and worse on each domain."""
    before = {_key(row): row for row in found.predictions if row.get("method") == UNTRAINED}
    own = [row for row in found.predictions if row.get("method") == found.primary]
    seed = own[0].get("seed") if own else None
    pairs = [Moved(before[_key(row)], row) for row in own if row.get("seed") == seed and _key(row) in before]
    groups = []
    for title, domain, sign in (
        ("gained on the target", "target", 1),
        ("lost on the target", "target", -1),
        ("lost on the source", "source", -1),
    ):
        of_domain = [pair for pair in pairs if pair.after["domain"] == domain]
        some = sorted((pair for pair in of_domain if sign * pair.gain > 0), key=lambda pair: -sign * pair.gain)
        if of_domain:
            rows = [_shown(pair) for pair in some[:SHOWN]]
            groups.append({"title": title, "rows": rows, "n": len(some), "of": len(of_domain), "seed": seed})
    return groups


def _key(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row.get("domain"), row.get("id")


def _shown(pair: Moved) -> dict[str, str]:
    return {
        "text": _cut(str(pair.after["prompt"]).rsplit("\n", 1)[-1]),
        "gold": _answer(pair.after["gold"]),
        "before": _said(pair.before),
        "after": _said(pair.after),
    }


def _said(row: Mapping[str, Any]) -> str:
    if row.get("valid"):
        return _answer(row["predicted"])
    why = f" ({row['problem']})" if row.get("problem") else ""
    return f"not readable{why}: {_cut(str(row.get('output', '')))}"


def _answer(entities: Any) -> str:
    return answer((str(kind), str(text)) for kind, text in entities)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[:TEXT] + "…"


def surest_wrong(found: SyntheticRun) -> dict[str, Any] | None:
    """Give the labels that are wrong although the model was sure of them."""
    graded = [row for row in found.labels if is_graded(row)]
    wrong = sorted((row for row in graded if not is_right(row)), key=lambda row: -row["confidence"])
    if not graded:
        return None
    return {"rows": [_label(row) for row in wrong[:SHOWN]], "n": len(wrong), "of": len(graded)}


def _label(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "text": _cut(str(row.get("text", ""))),
        "label": _answer(row["entities"]),
        "gold": _answer(row["gold"]),
        "confidence": percent(row["confidence"]),
        "trained_on": "yes" if row.get("trained_on") else "no",
    }
