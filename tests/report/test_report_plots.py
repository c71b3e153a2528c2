import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.report.heat import pick_item
from equipoise.report.plane import plane_limits, weight_colour
from equipoise.report.plots import binned
from equipoise.report.svg import clean, panel
from equipoise.report.tables import value, verdicts


def rows(values, start=1):
    return [{"step": i + start, "loss": v} for i, v in enumerate(values)]


def test_bins_keep_short_curves_as_they_are():
    steps, values = binned([rows([4.0, 2.0]), rows([6.0, 4.0])], "loss")
    assert steps == pytest.approx([1, 2])
    assert values == pytest.approx(np.array([[4, 2], [6, 4]]))


def test_a_seed_that_stopped_early_leaves_a_gap_and_bad_numbers_are_skipped():
    _, values = binned([rows([4.0, 2.0, 1.0]), rows([6.0, None])], "loss")
    assert values[0] == pytest.approx([4, 2, 1])
    assert values[1][0] == 6 and np.isnan(values[1][1:]).all()
    assert binned([rows([None, float("nan")])], "loss")[0].size == 0


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400))
def test_binned_means_stay_within_the_values(column):
    steps, values = binned([rows(column)], "loss")
    assert steps.size <= 60 and (np.diff(steps) > 0).all()
    assert values.min() >= min(column) - 1e-6 and values.max() <= max(column) + 1e-6


def test_the_plane_shows_every_token_even_if_all_are_alike():
    assert plane_limits([{"h": 1.0, "nll": 0.0}]) == (0.1, 1.0, 1e-4, 20.0)
    low_h, _, low_nll, high = plane_limits([{"h": 0.02, "nll": 40.0}, {"h": 0.5, "nll": 0.3}])
    assert (low_h, low_nll) == (0.01, 0.1) and high > 40


def test_colours_of_weights_run_one_way_and_saturate():
    def red_minus_blue(weight):
        colour = weight_colour(weight)
        return int(colour[1:3], 16) - int(colour[5:7], 16)

    tones = [red_minus_blue(w) for w in (0.01, 0.1, 1.0, 5.0, 31.0)]
    assert tones == sorted(tones) and tones[0] < 0 < tones[-1]
    assert weight_colour(0.0) == weight_colour(1e-3) and weight_colour(31.7) == weight_colour(1e9)


def test_the_example_is_a_typical_confident_mistake():
    def token(item, shock, knowledge="confident-wrong", conflict=True, after=0.1):
        return {"item": item, "position": 0, "knowledge": knowledge, "is_conflict": conflict, "shock": shock,
                "nll": 5.0, "h": 0.1, "after": {"r-eaft": {"nll": after, "h": 0.1}}}  # fmt: skip

    tokens = [token("low", 6), token("typical", 50), token("high", 900), token("other", 55, "unknown")]
    assert pick_item(tokens, "r-eaft") == "typical"
    assert pick_item([token("worse", 50, after=9.0), token("better", 900)], "r-eaft") == "better"
    assert pick_item([token("calm", 1, conflict=False)], "r-eaft") == "calm"
    assert pick_item([], "r-eaft") is None


def test_a_value_is_cut_where_shares_end_but_a_ratio_is_not():
    scores = {"mean": 0.98, "ci": [0.95, 1.01]}
    assert value("retention", scores).interval == "95.0 to 100.0"
    assert value("share", scores, highest=10).interval == "95.0 to 101.0"
    assert value("retention", 0.5).text == "50.0%" and value("retention", 0.5).low is None
    assert value("retention", None).text == "–"


def test_verdicts_print_their_numbers():
    row = {"id": "H1", "claim": "c", "verdict": "not supported", "test": "paired t", "estimate": -0.036, "t": -5.31}
    (shown,) = verdicts({"hypotheses": [{**row, "ci": [-0.055, -0.017], "p": 0.997, "p_holm": None}]})
    assert shown.details == "paired t · difference −3.6 points [−5.5, −1.7] · t = −5.31 · p for the claim 0.997"
    assert shown.kind == "no"
    (odd,) = verdicts({"hypotheses": [{**row, "verdict": "who knows"}]})
    assert (odd.word, odd.kind) == ("who knows", "none")


def test_panels_carry_text_as_text_and_no_foreign_ids():
    shown = panel("demo", 'a "quoted" <label>', lambda axes: axes.set_title("<b> & $x^2"))
    assert 'aria-label="a &#34;quoted&#34; &lt;label&gt;"' in shown.svg
    assert "&lt;b&gt; &amp; $x^2" in shown.svg
    assert 'id="figure_1"' not in shown.svg


def test_cleaning_rounds_paths_but_not_text():
    raw = '<?xml?><svg width="9pt" viewBox="0 0 9 9"><path d="M 1.23456 2.0004"/><text>0.12345</text></svg>'
    assert '<path d="M 1.23 2"/><text>0.12345</text>' in clean(raw, "n", "l")
