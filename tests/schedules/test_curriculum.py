"""The order of training rows: what is in use, what is drawn, and that a broken run goes on with the same picks."""

import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.schedules.curriculum import Curriculum, Schedule
from equipoise.schedules.pacing import PACINGS, paced
from equipoise.training.curriculum_settings import CurriculumSettings

DEFAULT = Schedule()
ALL = [*PACINGS, "bins"]
schedules = st.builds(
    Schedule,
    pacing=st.sampled_from(ALL),
    start=st.floats(0.01, 1),
    full=st.floats(0.05, 1),
    stages=st.integers(1, 6),
    order=st.sampled_from(["confident", "reverse", "random"]),
    replay=st.floats(0, 0.5),
    dynamic=st.booleans(),
)
confidences = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def curriculum(schedule=DEFAULT, confidence=(0.9, 0.5, 0.7, 0.1), *, steps=20, batch=2, seed=0, replay=0):
    return Curriculum(schedule, confidence, total_steps=steps, batch=batch, seed=seed, replay_size=replay)


# ---- pacing


@given(schedules, st.integers(2, 60))
def test_the_share_rises_from_the_start_to_everything(schedule, steps):
    shares = [curriculum(schedule, steps=steps).share(step) for step in range(steps + 3)]
    first = {"bins": schedule.bins[0], "none": 1.0}.get(schedule.pacing, schedule.start)
    # a run so short that it is in full use at its second step still starts where it should
    assert shares[0] == pytest.approx(first)
    assert all(a <= b for a, b in pairwise(shares))
    assert all(0 < share <= 1 for share in shares) and shares[steps - 1] == 1


def test_pacings_against_their_formulas():
    half = {name: paced(name, 0.5, 0.25) for name in PACINGS}
    assert half["linear"] == pytest.approx(0.625)
    assert half["root"] == pytest.approx(math.sqrt(0.53125))  # 0.0625 + 0.9375 / 2
    assert half["quadratic"] == pytest.approx(0.4375)
    assert half["geometric"] == pytest.approx(0.5)
    assert half["step"] == 0.25 and half["none"] == 1
    assert half["exponential"] == pytest.approx(0.25 + 0.75 * (math.e**5 - 1) / (math.e**10 - 1))
    assert half["log"] == pytest.approx(0.25 + 0.75 * math.log(1 + 0.5 * (math.e**10 - 1)) / 10)
    # log and exponential are mirror images
    assert paced("log", paced("exponential", 0.3, 1e-12), 1e-12) == pytest.approx(0.3)


def test_bins_divide_the_run_into_equal_parts():
    bins = curriculum(Schedule(pacing="bins"), steps=20)
    assert bins.stages() == [(0, 0.1), (5, 0.2), (10, 0.4), (15, 1.0)]
    assert [bins.stage(step) for step in (0, 4, 5, 19, 99)] == [0, 0, 1, 3, 3]


def test_everything_is_in_use_after_the_full_part_of_the_run():
    linear = curriculum(Schedule(start=0.1, full=0.5), steps=21)
    assert linear.share(9) < 1 and linear.share(10) == 1
    assert linear.share(5) == pytest.approx(0.55)


# ---- the pool


def test_the_surest_come_first_and_the_controls_turn_that_round():
    sure = [0.1, 0.9, 0.5, 0.7]
    assert curriculum(confidence=sure, batch=1).pool(0) == [1]
    assert curriculum(confidence=sure).pool(19) == [1, 3, 2, 0]
    assert curriculum(Schedule(order="reverse"), sure).pool(19) == [0, 2, 3, 1]
    orders = {tuple(curriculum(Schedule(order="random"), sure, seed=seed).pool(19)) for seed in range(40)}
    assert len(orders) > 10


def test_ties_are_broken_by_the_seed_and_not_by_the_order_of_the_file():
    first = [curriculum(confidence=[0.5] * 30, batch=3, seed=seed).pool(0) for seed in range(20)]
    assert len({row for pool in first for row in pool}) > 20
    assert first == [curriculum(confidence=[0.5] * 30, batch=3, seed=seed).pool(0) for seed in range(20)]


def test_below_the_threshold_nothing_is_ever_used():
    only = curriculum(Schedule(pacing="none", threshold=0.5))
    assert {pick.index for step in range(20) for pick in only.batch(step)} == {0, 1, 2}
    with pytest.raises(UserError, match=r"surest has 0\.9"):
        curriculum(Schedule(threshold=0.95))


@given(schedules, confidences, st.integers(1, 9), st.integers(0, 5))
def test_pools_only_grow_while_confidence_stands(schedule, confidence, batch, seed):
    growing = curriculum(schedule, confidence, batch=batch, seed=seed)
    pools = [growing.pool(step) for step in range(20)]
    assert all(b[: len(a)] == a for a, b in pairwise(pools))
    assert sorted(pools[-1]) == list(range(len(confidence)))


# ---- what is drawn


@given(schedules, confidences, st.integers(1, 9), st.integers(0, 3), st.integers(0, 12))
def test_a_batch_is_full_in_use_and_without_needless_repeats(schedule, confidence, batch, attempt, replay):
    drawn = curriculum(schedule, confidence, batch=batch, replay=replay)
    for step in (0, 7, 19):
        picks = drawn.batch(step, attempt)
        targets = [pick.index for pick in picks if pick.kind == "target"]
        assert len(picks) == batch and set(targets) <= set(drawn.pool(step))
        assert len(set(targets)) == min(len(targets), len(drawn.pool(step)))
        assert all(0 <= pick.index < replay for pick in picks if pick.kind == "source")


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 9))
def test_drawing_is_even_over_what_is_in_use(rows, batch, seed):
    even = curriculum(Schedule(pacing="none", replay=0), np.linspace(0, 1, rows), steps=50, batch=batch, seed=seed)
    counts = Counter()
    for step in range(50):
        counts.update(pick.index for pick in even.batch(step))
        if batch <= rows:
            assert max(counts.values()) - min(counts[i] for i in range(rows)) <= 1


def test_rows_that_come_into_use_are_not_caught_up_on():
    late = curriculum(Schedule(pacing="bins", bins=(0.5, 1.0), replay=0), np.linspace(1, 0, 20), steps=40, batch=5)
    before = Counter(pick.index for step in range(20) for pick in late.batch(step))
    assert set(before) == set(range(10)) and set(before.values()) == {10}
    after = Counter(pick.index for step in range(20, 40) for pick in late.batch(step))
    assert set(after) == set(range(20)) and set(after.values()) == {5}


def test_another_attempt_brings_other_rows_and_leaves_later_steps_alone():
    one, two = (curriculum(confidence=np.linspace(1, 0, 30), batch=4) for _ in range(2))
    targets = [{pick.index for pick in one.batch(19, attempt)} for attempt in range(3)]
    assert len(set.union(*targets)) == 12
    assert [one.batch(step) for step in range(25)] == [two.batch(step) for step in range(25)]


@given(st.floats(0, 0.5), st.integers(1, 16), st.integers(1, 50))
def test_the_share_of_replay_holds_over_the_run(share, batch, replay):
    drawn = curriculum(Schedule(replay=share), steps=60, batch=batch, replay=replay)
    sources = [pick.index for step in range(60) for pick in drawn.batch(step) if pick.kind == "source"]
    assert abs(len(sources) - 60 * batch * share) <= 1
    counts = Counter(sources)
    if sources:
        assert max(counts.values()) - min(counts[i] for i in range(replay)) <= 1


def test_a_pick_depends_on_the_step_and_not_on_what_was_asked_before():
    forward, backward = (curriculum(confidence=np.linspace(0, 1, 17), batch=3, replay=5) for _ in range(2))
    ahead = [forward.batch(step) for step in range(20)]
    assert ahead == [backward.batch(step) for step in reversed(range(20))][::-1]
    other = curriculum(confidence=np.linspace(0, 1, 17), batch=3, replay=5, seed=1)
    assert ahead != [other.batch(step) for step in range(20)]


# ---- dynamic, and going on after a break


@settings(deadline=None)
@given(st.integers(0, 19), st.sampled_from(ALL))
def test_a_broken_run_goes_on_with_the_same_picks(broken, pacing):
    rng = np.random.default_rng(3)
    start, news = rng.random(23), {step: rng.random(23) for step in (5, 10, 15)}
    schedule = Schedule(pacing=pacing, dynamic=True, replay=0.1)

    def run(drawn, steps):
        picks = []
        for step in steps:
            if drawn.due(step):
                drawn.update(step, news[step])
            picks.append(drawn.batch(step))
        return picks

    whole = run(curriculum(schedule, start, batch=3, replay=9), range(20))
    first = curriculum(schedule, start, batch=3, replay=9)
    head = run(first, range(broken))
    second = curriculum(schedule, np.zeros(23), batch=3, replay=9)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert head + run(second, range(broken, 20)) == whole


def test_new_confidence_changes_the_order_from_its_step_on_alone():
    drawn = curriculum(Schedule(pacing="bins", dynamic=True, replay=0), np.linspace(1, 0, 20), batch=2)
    assert [step for step in range(20) if drawn.due(step)] == [5, 10, 15]
    before = [drawn.batch(step) for step in range(5)]
    drawn.update(5, np.linspace(0, 1, 20))
    assert drawn.pool(4) == [0, 1] and drawn.pool(5) == [19, 18, 17, 16]
    assert [drawn.batch(step) for step in range(5)] == before
    assert {pick.index for pick in drawn.batch(5)} <= {16, 17, 18, 19}


def test_a_policy_that_became_unsure_of_everything_goes_on_with_its_surest_row():
    drawn = curriculum(Schedule(threshold=0.5, pacing="none", dynamic=True))
    drawn.update(5, [0.1, 0.3, 0.2, 0.1])
    assert drawn.pool(5) == [1]


# ---- what cannot be


@pytest.mark.parametrize(
    "wrong",
    [
        {"pacing": "cosine"},
        {"start": 0.0},
        {"full": 0.0},
        {"bins": (0.2, 0.1, 1.0)},
        {"bins": (0.1, 0.5)},
        {"bins": ()},
        {"stages": 0},
        {"order": "best"},
        {"threshold": 1.5},
        {"replay": 1.0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} cannot be"):
        Schedule(**wrong)


def test_nothing_to_do_is_refused():
    for wrong in ({"confidence": []}, {"confidence": [1.2]}, {"steps": 0}, {"batch": 0}):
        with pytest.raises(UserError):
            curriculum(**wrong)
    drawn = curriculum()
    with pytest.raises(UserError, match="3 new confidences for 4"):
        drawn.update(3, [0.1] * 3)
    drawn.update(5, [0.1] * 4)
    with pytest.raises(UserError, match="come after"):
        drawn.update(3, [0.1] * 4)
    with pytest.raises(UserError, match="saved for 4 rows, not 2"):
        curriculum(confidence=[0.1, 0.2]).load_state_dict(drawn.state_dict())


def test_a_recipe_says_the_same_as_the_schedule():
    assert CurriculumSettings().schedule() == Schedule()
    read = resolve(CurriculumSettings, None, ["pacing=bins", "bins=[0.5, 1.0]", "threshold=0.3", "order=reverse"])
    assert read.schedule() == Schedule(pacing="bins", bins=(0.5, 1.0), threshold=0.3, order="reverse")
    with pytest.raises(UserError, match="bins rise"):
        resolve(CurriculumSettings, None, ["bins=[0.5, 0.2]"])
