"""A user's mistake is told with its place and its remedy, also from another process."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import UserError

maybe = st.none() | st.text(min_size=1)


def test_place_first_then_the_remedy_and_the_page():
    error = UserError(
        "the file is empty", where="a.jsonl:1", fix="write one object a line", docs="docs/your-data.md#dropped-rows"
    )
    assert str(error).splitlines() == [
        "a.jsonl:1: the file is empty",
        "  what to do: write one object a line",
        "  see: docs/your-data.md#dropped-rows",
    ]


def test_what_is_not_known_is_not_mentioned():
    assert str(UserError("no such model")) == "no such model"
    assert str(UserError("no such model", fix="check the name")) == "no such model\n  what to do: check the name"


def test_a_place_is_given_by_name_only():
    with pytest.raises(TypeError):
        UserError("what", "where")  # pyright: ignore[reportCallIssue]  the mistake under test


@given(what=st.text(), where=maybe, fix=maybe, docs=maybe)
def test_survives_the_way_between_processes(what, where, fix, docs):
    error = UserError(what, where=where, fix=fix, docs=docs)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is UserError
        assert (twin.what, twin.where, twin.fix, twin.docs) == (what, where, fix, docs)
        assert str(twin) == str(error) and twin.args == error.args
