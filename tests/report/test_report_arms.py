import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.objectives.weighting import weighting
from equipoise.report.arms import styles, weighting_of

NLL = np.array([1.5127585117389692, 4.197267813515554, 18.70634350155807, 7.556896124010074])
H = np.array([0.9542050547974524, 0.7718609340374831, 0.3378864716650446, 0.33861350544876595])


def test_r_eaft_agrees_with_the_published_reference():
    """Weights of four tokens as the reference vectors give them: below tau, just above, clamped, between."""
    weight = weighting_of({}, "r-eaft").weight
    assert weight is not None
    expected = [0.9542050547974524, 4.262708752763853, 31.0, 14.390264154209667]
    assert weight(NLL, H) == pytest.approx(expected, rel=1e-12)


def test_closed_forms_by_hand():
    one, half = np.array([0.0, np.log(2.0)]), np.array([0.5, 0.25])
    assert weighting_of({}, "sft").weight(one, half) == pytest.approx([1, 1])
    assert weighting_of({}, "dft").weight(one, half) == pytest.approx([1, 0.5])
    assert weighting_of({}, "eaft").weight(one, half) == pytest.approx([0.5, 0.25])
    assert weighting_of({"arms": {"x": {"name": "eaft", "params": {"power": 2}}}}, "x").weight(
        one, half
    ) == pytest.approx([0.25, 0.0625])
    assert weighting_of({}, "focal").weight(one, half) == pytest.approx([0, 0.25])


CASES = [
    *[(name, {}) for name in ("sft", "dft", "eaft", "focal", "profit", "stm", "r-eaft", "r-eaft-recent")],
    *[("eaft", {"power": 2.0}), ("focal", {"gamma": 1.5}), ("profit", {"threshold": 0.3})],
    *[("r-eaft", {"tau": 12.0}), ("r-eaft", {"alpha": 0}), ("r-eaft-recent", {"quantile": 0.9, "tau": 7.0})],
]


@settings(deadline=None)
@given(
    st.sampled_from(CASES),
    st.lists(st.tuples(st.floats(0.001, 30), st.floats(1e-4, 1)), min_size=1, max_size=8),
)
def test_what_is_drawn_is_what_the_objective_does(arm, tokens):
    name, params = arm
    nll, h = np.array(tokens).T
    drawn = weighting_of({"arms": {"x": {"name": name, "params": params}}}, "x").weight
    assert drawn is not None
    trained = weighting(name, **params)(torch.tensor(nll), torch.tensor(h))
    assert drawn(nll, h) == pytest.approx(trained.numpy(), rel=1e-9, abs=1e-12)


def test_parameters_come_from_the_recipe():
    config = {"arms": {"mine": {"name": "r-eaft", "params": {"tau": 20, "alpha": 1.0}}}}
    found = weighting_of(config, "mine")
    assert found.shock_line == (20, 1e-6)
    assert found.weight is not None
    assert found.weight(np.array([4.0]), np.array([0.1]))[0] == pytest.approx(1 + 40 / 20, rel=1e-4)
    assert weighting_of(config, "sft").shock_line is None


def test_an_arm_unknown_here_has_no_form():
    assert weighting_of({"arms": {"new": {"name": "eaft-topk"}}}, "new").weight is None
    assert weighting_of({"arms": ["new"]}, "new").weight is None
    assert weighting_of({}, "r-eaft-tail").weight is None  # it is no function of nll and h alone


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), unique=True, max_size=5))
def test_known_arms_always_look_the_same_and_no_two_alike(others):
    names = ["sft", "r-eaft", *(name for name in others if name not in ("sft", "r-eaft"))]
    drawn = styles(names)
    assert (drawn["sft"].colour, drawn["r-eaft"].colour) == ("#D55E00", "#0072B2")
    assert len({(arm.colour, arm.marker) for arm in drawn.values()}) == len(names)
