"""What a report says and draws where there is little: one question, one arm, nothing that differs."""

import pytest
from matplotlib.figure import Figure

from equipoise.report.arms import styles
from equipoise.report.plots import draw_trade_off


def one(kept: float) -> dict:
    score = {"mean": kept, "values": [kept], "ci": None}
    return {
        "tasks": ["correction", "locality"],
        "arms": {"sft": {"correction": {"mean": 1.0, "values": [1.0], "ci": None}, "locality": score}},
        "untrained": {"correction": 0.0, "locality": kept},
        "hypotheses": [],
    }


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_the_ticks_of_a_trade_off_differ_where_nothing_was_lost(kept):
    figure = Figure()
    axes = figure.subplots()
    draw_trade_off(axes, one(kept), styles(["sft"]), "locality")
    figure.draw_without_rendering()
    ticks = [text for tick in axes.get_xticklabels() if (text := tick.get_text())]  # beyond 0 and 1 there is none
    assert len(set(ticks)) == len(ticks) > 2 and "−0%" not in ticks
    assert axes.get_xlim()[0] < kept < axes.get_xlim()[1]
