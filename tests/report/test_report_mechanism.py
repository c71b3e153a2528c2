"""The figures of what an arm listens to: its threshold, where it moves, and files of figures that stand alone."""

from xml.etree import ElementTree

import numpy as np
import pytest

from equipoise.report.arms import GLYPHS, SPARE, styles, weighting_of
from equipoise.report.plane import planes, threshold_words
from equipoise.report.sheet import arm_keys, sheet
from equipoise.report.shock import weight_against_shock
from equipoise.report.svg import INK, panel

CONFIG = {
    "arms": {
        "sft": {"name": "sft"},
        "tau-20": {"name": "r-eaft", "params": {"tau": 20}},
        "soft": {"name": "r-eaft-recent", "params": {"quantile": 0.5}},
        "siege": {"name": "r-eaft", "params": {"tau": 1, "alpha": 30, "clamp": 1}},
    }
}
TOKENS = [
    {"h": float(h), "nll": float(s * h), "shock": float(s), "is_conflict": bool(s > 100), "weights": {}}
    for h, s in zip(np.geomspace(1e-3, 0.9, 41), np.geomspace(0.5, 2000, 41)[::-1])
]


def weightings(*arms):
    return {arm: weighting_of(CONFIG, arm).after([row["shock"] for row in TOKENS]) for arm in arms}


def test_a_threshold_that_moves_is_drawn_where_the_tokens_put_it():
    """By hand: the middle of 41 shocks from 0.5 to 2,000 in equal ratios is the root of 0.5 * 2000."""
    soft, fixed = weighting_of(CONFIG, "soft"), weighting_of(CONFIG, "tau-20")
    assert soft.moves and not fixed.moves and soft.shock_line == (5.0, 1e-6)
    seen = soft.after([row["shock"] for row in TOKENS])
    assert seen.shock_line == (pytest.approx(1000**0.5), 1e-6)
    assert fixed.after([1.0, 2.0]) == fixed and soft.after([]) == soft
    assert seen.weight is not None
    low, high = seen.weight(np.array([0.3, 0.33]), np.array([0.01, 0.01]))
    assert low == 0.01 and high == pytest.approx(1 + 3 * 33 / 1000**0.5, rel=1e-3)


def test_a_plane_says_where_its_threshold_stands_and_what_lies_above():
    found = weightings("tau-20", "soft", "siege")
    assert threshold_words(found["tau-20"]) == "τ = 20\nweight 4 to 31"
    assert threshold_words(found["soft"]) == "τ moves, 31.6 here\nweight 4 to 31"
    assert threshold_words(found["siege"]) == "τ = 1\nweight 31"
    arms = styles(["sft", "soft"])
    plain, moving = planes(TOKENS, arms, weightings(*arms), vocab=4000)
    for text in ("confident conflict", "stable", "uncertain", "probability of the token", ">0.9<", ">1e-8<"):
        assert text in plain.svg
    assert "τ" not in plain.svg and "τ moves, 31.6 here" in moving.svg


def test_lines_of_weight_against_shock_are_named_once_each():
    config = {"arms": {**CONFIG["arms"], "twin": CONFIG["arms"]["tau-20"]}}
    arms = styles(config["arms"])
    found = {arm: weighting_of(config, arm) for arm in arms}
    shown = weight_against_shock(TOKENS, arms, found)
    assert shown is not None
    assert "tau-20, twin" in shown.svg and "siege" in shown.svg and ">soft<" in shown.svg and ">SFT<" not in shown.svg
    assert "siege: from shock 1 on" in shown.label


def test_without_a_threshold_or_tokens_there_is_no_such_figure():
    assert weight_against_shock(TOKENS, styles(["sft"]), weightings("sft")) is None
    assert weight_against_shock([], styles(["siege"]), weightings("siege")) is None


def test_the_arms_of_every_protocol_look_different_and_have_a_glyph():
    names = ["sft", "eaft", *(f"tau-{n}" for n in (1, 2, 5, 10, 20, 50)), "supershock", "soft", "hard"]
    drawn = styles(names)
    assert len({arm.colour for arm in drawn.values()}) == len({arm.marker for arm in drawn.values()}) == len(names)
    assert {marker for _, marker in SPARE} <= set(GLYPHS)


def test_a_sheet_stands_alone_and_lays_its_panels_out():
    def panels():
        for n, height in enumerate((200, 300, 250)):
            yield panel(f"p{n}", f"figure {n} <&>", lambda axes: axes.plot([0, 1], [0, 1], color=INK), height=height)

    arms = styles(["sft", "<b>", *(f"an arm with a long name {n}" for n in range(20))])
    text = sheet(list(panels()), columns=2, legends=[arm_keys(arms)])
    root = ElementTree.fromstring(text)
    inner = root.findall("{http://www.w3.org/2000/svg}svg")
    at = [(float(one.get("x", "")), float(one.get("y", "")), float(one.get("height", ""))) for one in inner]
    assert [height for *_, height in at] == [200, 300, 250]
    assert at[0][1] == at[1][1] and at[0][0] == at[2][0] < at[1][0] and at[2][1] >= at[1][1] + 300
    assert float(root.get("height", "")) >= at[2][1] + 250
    lines = root.findall("{http://www.w3.org/2000/svg}text")
    assert len(lines) > 3 and max(float(line.get("y", "")) for line in lines) < at[0][1]
    assert INK in text and "var(--" not in text and "&lt;b&gt;" in text
