#!/usr/bin/env python3
"""How well a scan's classes and its tau meet the truth of the testbed, whose facts have a known class.

Half of the facts, by a hash of their ids, are there to choose thresholds on; what is printed as held out comes from the
others. A fact is taken for what its most surprising token is.

    python benchmarks/scan_classes.py
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import Any

import numpy as np

from equipoise.evaluation.tokens import token_rows
from equipoise.metrics.detection import average_precision
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.signals.classes import CLASSES, CONFLICT, Thresholds, classify, contradiction, separating_tau
from equipoise.testbed.examples import ALL, load_facts

TRUTH = {"stable": 0, "uncertain": 1, "confident-wrong": 2, "unknown": 3}
SURE = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7)
PLAUSIBLE = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03)


def macro_f1(truth: Any, found: Any) -> float:
    both = [((truth == c) & (found == c)).sum() for c in range(4)]
    return float(np.mean([2 * n / max((truth == c).sum() + (found == c).sum(), 1) for c, n in enumerate(both)]))


def main() -> None:
    loaded = load_model(ModelSettings())
    vocab = loaded.model.get_output_embeddings().weight.shape[0]
    rows = list(token_rows(loaded, load_facts(ALL)[0]))
    facts = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["item"])]
    held_out = np.array([hashlib.sha256(fact[0]["item"].encode()).digest()[0] % 2 == 1 for fact in facts])
    truth = np.array([TRUTH[fact[0]["knowledge"]] for fact in facts])
    worst = [max(fact, key=lambda row: row["nll"]) for fact in facts]
    nll, h = (np.array([row[name] for row in worst]) for name in ("nll", "h"))

    print("macro F1 on the half to choose on; columns: plausible", *PLAUSIBLE)
    ours = ~held_out
    for sure in SURE:
        scores = [
            macro_f1(truth[ours], classify(nll[ours], h[ours], vocab, Thresholds(sure=sure, plausible=p)))
            for p in PLAUSIBLE
        ]
        print(f"sure {sure:<5}", *(f"{score:.3f}" for score in scores))

    print(f"\ndefaults, held-out facts ({held_out.sum()}); rows: truth, columns:", *CLASSES[:4])
    true, found = truth[held_out], classify(nll[held_out], h[held_out], vocab)
    for name, c in TRUTH.items():
        counts = [int(((true == c) & (found == k)).sum()) for k in range(4)]
        precision, recall = counts[c] / (found == c).sum(), counts[c] / (true == c).sum()
        print(f"{name:16}", *(f"{n:4}" for n in counts), f"  precision {precision:.3f}, recall {recall:.3f}")
    print(f"right {np.mean(true == found):.3f}, macro F1 {macro_f1(true, found):.3f}")

    all_nll, all_h = (np.array([row[name] for row in rows]) for name in ("nll", "h"))
    token_half = np.repeat(held_out, [len(fact) for fact in facts])
    classes = classify(all_nll, all_h, vocab)
    tau = separating_tau(all_nll[~token_half], all_h[~token_half], classes[~token_half])
    assert tau is not None
    wrong = np.array([row["is_conflict"] and row["knowledge"] == "confident-wrong" for row in rows])
    shock = np.array([row["shock"] for row in rows])
    cuts = {"tau suggested": tau["tau"], "tau = ln V": math.log(vocab), "tau = 5": 5.0}
    flags = {f"{name} ({cut:.4g})": shock > cut for name, cut in cuts.items()} | {"class conflict": classes == CONFLICT}
    print("\nheld-out tokens that are flagged; to be found: where a confidently wrong fact leaves the model's answer")
    for name, flagged in flags.items():
        n, hits = flagged[token_half].sum(), (flagged & wrong)[token_half].sum()
        print(f"{name:24} {n:4} flagged, precision {hits / n:.3f}, recall {hits / wrong[token_half].sum():.3f}")

    against = np.where(classes == CONFLICT, contradiction(all_nll, all_h, vocab), 0.0)
    starts = np.cumsum([0, *(len(fact) for fact in facts)][:-1])
    orders = {"nll - H of conflicts (the list)": against, "shock": shock, "nll": all_nll}
    print("\naverage precision of the facts' order, for confidently wrong ones, held out")
    for name, values in orders.items():
        best = np.maximum.reduceat(values, starts)
        print(f"{name:32} {average_precision(true == CONFLICT, best[held_out]):.3f}")


if __name__ == "__main__":
    main()
