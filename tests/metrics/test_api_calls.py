import ast
import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.metrics.api_calls import published_score, score_call

ASSETS = files("equipoise.testbed").joinpath("assets", "api_changes.jsonl").read_text(encoding="utf-8")
CHANGES = [json.loads(line) for line in ASSETS.splitlines() if line.strip()]
GOLD, OLD = 'pd.concat([a, b], axis=1, keys=["x", "y"])', "a.append(b)"


@pytest.mark.parametrize("row", CHANGES, ids=lambda row: row["id"])
def test_every_shipped_change_is_scored_strictly(row):
    new, old = row["new"], row["old"]
    assert score_call(new, new, old) == 1.0
    for wrong in (old, f"{new}\n{old}", f"{new} {old}", f"{new} or {old}", f"{new}  # was {old}", "asdf jkl", "", "()"):
        assert score_call(wrong, new, old) == 0.0, wrong


@pytest.mark.parametrize("row", CHANGES, ids=lambda row: row["id"])
def test_every_shipped_change_survives_another_layout(row):
    new = row["new"]
    for same in (
        ast.unparse(ast.parse(new)),
        f"  {new}\n\n",
        f"```python\n{new}\n```",
        f"```\n{new}\n```\n",
        f"`{new}`",
    ):
        assert score_call(same, new, row["old"]) == 1.0, same


@pytest.mark.parametrize(
    "same",
    [
        "pd.concat([a, b], axis=1, keys=['x', 'y'])",
        "pd.concat( [a,b], keys = ['x','y'], axis = 1 )",
        "pd.concat(\n    [a, b],\n    axis=1,\n    keys=['x', 'y'],\n)",
        "(pd.concat([a, b], axis=1, keys=['x', u'y']))",
        "```py\r\npd.concat([a, b], axis=1, keys=['x', 'y'])\r\n```",
    ],
)
def test_layout_quotes_and_keyword_order_do_not_matter(same):
    assert score_call(same, GOLD, OLD) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        'pd.concat([b, a], axis=1, keys=["x", "y"])',
        'pd.concat([a, b], 1, keys=["x", "y"])',
        'pd.concat([a, b], axis=1.0, keys=["x", "y"])',
        'pd.concat([a, b], axis=True, keys=["x", "y"])',
        'pd.concat([a, b], axis=1, axis=1, keys=["x", "y"])',
        'pandas.concat([a, b], axis=1, keys=["x", "y"])',
        f"df = {GOLD}",
        f"{GOLD}.reset_index()",
        f"print({GOLD})",
        f"Use {GOLD}",
        f"Use this:\n```python\n{GOLD}\n```",
        f"```python\n{GOLD}\n```\nIt replaces append.",
        f"```python\n{GOLD}\n```\n```python\n{GOLD}\n```",
        f"{GOLD}; {OLD}",
        f"{GOLD} # stacks them",
        f"import pandas as pd\n{GOLD}",
        f'"""{GOLD}"""',
    ],
)
def test_anything_but_the_call_is_wrong(wrong):
    assert score_call(wrong, GOLD, OLD) == 0.0


@pytest.mark.parametrize(
    "monster",
    [
        "(" * 5000,
        "-" * 100_000 + "1",
        "a" + ".b" * 100_000,
        "f()\0",
        "1" * 5000,
        "0x" + "f" * 9000,
        "f('\ud800')",
        "f'{'",
    ],
)
def test_monsters_are_wrong_and_do_not_crash(monster):
    assert score_call(monster, GOLD, OLD) == 0.0


@given(st.text())
def test_any_text_scores_1_exactly_if_it_parses_to_the_call(text):
    try:
        same = ast.dump(ast.parse(text.strip())) == ast.dump(ast.parse("f(x)"))
    except (SyntaxError, ValueError):
        same = text.strip().strip("`") == "f(x)"
    assert score_call(text, "f(x)", "g(x)") == float(same)


NAMES = st.sampled_from(["a", "b", "data", "x1"])
VALUES = st.one_of(st.integers(-9, 9), st.booleans(), st.text(max_size=4), st.floats(-5, 5), st.none()).map(repr)
CALLS = st.tuples(st.lists(VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4))


def _call(positional, keywords):
    return f"lib.call({', '.join([*positional, *(f'{k}={v}' for k, v in keywords)])})"


@given(CALLS, st.randoms())
def test_keywords_in_any_order_are_the_same_call(call, rng):
    positional, keywords = call
    mixed = list(keywords.items())
    rng.shuffle(mixed)
    assert score_call(_call(positional, mixed), _call(positional, keywords.items())) == 1.0


@given(CALLS, CALLS)
def test_another_call_is_another_score(one, other):
    same = one[0] == other[0] and one[1] == other[1]
    assert score_call(_call(other[0], other[1].items()), _call(one[0], one[1].items())) == float(same)


def test_double_star_mappings_keep_their_order():
    assert score_call("f(b=1, a=2, **x, **y)", "f(**x, a=2, b=1, **y)") == 1.0
    assert score_call("f(**y, **x)", "f(**x, **y)") == 0.0


def test_a_comment_counts_only_where_gold_has_it():
    assert score_call("f(x)  # new", "f(x)  # new") == 1.0
    assert score_call("f(x)", "f(x)  # new") == 1.0
    assert score_call("f(x)  # other", "f(x)  # new") == 0.0
    assert score_call("f('# no comment')", "f('# no comment')") == 1.0


@pytest.mark.parametrize(
    ("gold", "old"), [("not python at all", None), ("", None), ("f(); g()", None), ("f(x=1)", "f( x = 1 )")]
)
def test_an_item_that_cannot_be_judged_is_an_error(gold, old):
    with pytest.raises(UserError):
        score_call("f()", gold, old)


@pytest.mark.parametrize(
    ("output", "score"),
    [(GOLD, 1.0), (f"Use {GOLD}.", 1.0), (OLD, 0.0), (f"{GOLD} not {OLD}", 0.0), ("gibberish", 0.5), ("", 0.5)],
)
def test_the_published_rule_looks_for_substrings(output, score):
    assert published_score(output, GOLD, OLD) == score
