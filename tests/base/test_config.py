"""Recipes: what is not plainly right is an error that names its line, and what is written is read back alike."""

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from equipoise.config import Section, dump_yaml, load_yaml, nearest, resolve
from equipoise.errors import UserError
from equipoise.pipelines.settings import KnowledgeUpdateRecipe
from equipoise.training.settings import TrainSettings


class Part(Section):
    rate: float = Field(default=0.1, gt=0)
    label: str = "a"


class Recipe(Section):
    name: str = "none"
    count: int = Field(default=1, ge=1)
    flag: bool = False
    either: int | bool = 3
    when: int | Literal["never"] | None = None
    seeds: list[int] = Field(default=[1])
    pairs: Annotated[list[Annotated[float, Field(ge=0)]], Field(max_length=3)] = Field(default=[])
    part: Part = Part()
    maybe: Part | None = None
    arms: dict[str, Part] = Field(default={})
    parts: list[Part] = Field(default=[])
    extra: dict[str, Any] = Field(default={})
    learning_rate: float = 1.0


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path: Path, *overrides: str, schema: type[Section] = Recipe) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve(schema, path, list(overrides))
    return caught.value


# ---- what YAML says


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),  # bad input 43; YAML 1.1 takes it for a text
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),  # octal in YAML 1.1
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("2024-01-01", "2024-01-01"),  # a date in YAML 1.1
        ("no", "no"),  # false in YAML 1.1
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'5'", "5"),
        ("1e-5x", "1e-5x"),
        ("[1, two, {three: 3}]", [1, "two", {"three": 3}]),
    ],
)
def test_plain_values(text, value):
    read = load_yaml(f"key: {text}\n")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, "the key 'c' stands twice"),  # bad input 45
        ("a: 1\nb: !!python/object/apply:os.system ['echo pwned']\n", 2, "tag"),  # bad input 47
        ("a: !ruby/object {}\n", 1, "tag"),
        ("a: !!python/name:os.system\n", 1, "tag"),
        ("a: [1, 2\nb: 3\n", 2, "not readable as YAML"),
        ("a: 1\n\tb: 2\n", 2, "not readable as YAML"),
        ("a: 1\n5: 2\n", 2, "is not a text"),
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("a:\n  <<: {b: 1}\n", 2, "merge keys"),
        ("- 1\n", None, "a YAML mapping"),
        ("", None, "a YAML mapping"),
        ("a: 1\n---\nb: 2\n", 2, "not readable as YAML"),
        ("a: " + "[" * 20_000, None, "not readable as YAML"),
        ("a: " + "9" * 5000, 1, "too many digits"),
        ("a: \x07", None, "not readable as YAML"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_line(recipe, text, line, told):
    error = refused(recipe(text))
    assert told in error.what
    assert str(error.where).split(".yaml")[1].startswith(f":{line}" if line else "")


def test_no_tag_builds_an_object(tmp_path, recipe):
    trace = tmp_path / "trace"
    refused(
        recipe(f"name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{trace}']]\n")
    )
    assert not trace.exists()


def test_nested_aliases_cannot_blow_up(recipe):
    layers = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    refused(recipe(f"l0: &l0 lol\n{layers}\n"))


def test_merge_keys_are_refused_but_a_quoted_one_is_a_key_like_any_other(recipe):
    assert "merge" in refused(recipe("part:\n  <<: {rate: 1}\n")).what
    assert resolve(Recipe, recipe("extra: {'<<': 1}\n")).extra == {"<<": 1}


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 5_000,
        "\n".join(f"{' ' * i}a:" for i in range(2_000)),
        "# " + "x" * 2**21,
    ],
    ids=["lists", "mappings", "blocks", "two megabytes"],
)
def test_what_could_take_forever_is_refused_soon(recipe, text):
    started = time.process_time()
    refused(recipe(text))
    assert time.process_time() - started < 5


def test_lines_are_known_down_to_the_item():
    lines = load_yaml("a: 1\nb:\n  c:\n    - 1\n    - {d: 2}\n  e: x\n").lines
    places = [("a",), ("b",), ("b", "c"), ("b", "c", 1), ("b", "c", 1, "d"), ("b", "e")]
    assert [lines[place] for place in places] == [1, 2, 3, 5, 5, 6]


def test_a_file_that_is_no_text(tmp_path):
    for data in (b"name: caf\xe9\n", b"\x1f\x8b\x08\x00", "name: a\n".encode("utf-16")):
        (tmp_path / "recipe.yaml").write_bytes(data)
        refused(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbfname: marked\r\ncount: 2\r\n")
    assert resolve(Recipe, tmp_path / "recipe.yaml").name == "marked"


def test_a_recipe_that_is_not_there_or_a_folder(tmp_path):
    assert "No such file" in refused(tmp_path / "none.yaml").what
    assert refused(tmp_path).where == str(tmp_path)


# ---- what the schema says


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("name: a\nlearing_rate: 1\n", "2:learing_rate", "unknown key 'learing_rate'"),  # bad input 44
        ("part:\n  rate: 1\n  lable: x\n", "3:part.lable", "unknown key 'lable'"),
        ("arms:\n  one: {rate: 1}\n  two:\n    rat: 2\n", "4:arms.two.rat", "unknown key 'rat'"),
        ("maybe:\n  rates: 2\n", "2:maybe.rates", "unknown key 'rates'"),
        ("parts:\n  - rate: 1\n  - rate: 2\n    labl: b\n", "4:parts.1.labl", "unknown key 'labl'"),
        ("name: a\ncount: 0\n", "2:count", "greater than or equal to 1"),
        ("part:\n  rate: -1\n", "2:part.rate", "greater than 0"),
        ("part:\n\n  rate: .nan\n", "3:part.rate", "finite"),
        ("learning_rate: .inf\n", "1:learning_rate", "finite"),
        ("learning_rate: 1e999\n", "1:learning_rate", "finite"),
        ("name: a\nextra:\n  deep: [1, {x: .nan}]\n", "2:extra", "finite"),
        ("count: true\n", "1:count", "not true or false"),
        ("learning_rate: false\n", "1:learning_rate", "not true or false"),
        ("seeds: [1, true]\n", "1:seeds", "not true or false"),
        ("pairs: [0.5, false]\n", "1:pairs", "not true or false"),
        ("when: true\n", "1:when", "not true or false"),
        ("name: 5\n", "1:name", "valid string"),
        ("name: null\n", "1:name", "valid string"),
        ("count: 1.5\n", "1:count", "valid integer"),
        ("count: many\n", "1:count", "valid integer"),
        ("part: 5\n", "1:part", "a section"),
        ("seeds: 3\n", "1:seeds", "valid list"),
        ("when: 1.5\n", "1:when", "valid integer"),
    ],
)
def test_a_wrong_value_is_named_by_file_line_and_field(recipe, text, place, told):
    path = recipe(text)
    error = refused(path)
    assert str(error.where).startswith(f"{path}:{place}")
    assert told in error.what


def test_an_unknown_key_suggests_the_nearest(recipe):
    assert "'learning_rate'" in str(refused(recipe("learing_rate: 1\n")).fix)
    assert "'label'" in str(refused(recipe("part: {lable: x}\n")).fix)
    far = str(refused(recipe("part: {zzz: x}\n")).fix)
    assert "rate" in far
    assert "label" in far
    assert "count" not in far, "the keys of another section are no help"


def test_a_key_in_the_wrong_place_is_sent_to_its_section(recipe):
    assert refused(recipe("rate: 1e-5\n")).fix == "it belongs in a section: part.rate"
    assert refused(recipe("name: a\n"), "rate=1e-5").fix == "it belongs in a section: part.rate"


def test_a_key_of_an_arm_that_is_named_like_a_setting_is_still_found(recipe):
    assert "'rate'" in str(refused(recipe("arms:\n  rate: {rat: 1}\n")).fix)


def test_what_is_missing_is_named(recipe):
    class Needy(Section):
        part: Part
        wanted: int

    assert refused(recipe("part: {}\n"), schema=Needy).what == "'wanted' is missing"


def test_every_choice_that_a_field_has_is_told(recipe):
    told = refused(recipe("when: 1.5\n")).what
    assert "integer" in told
    assert "'never'" in told


def test_booleans_stand_where_booleans_belong(recipe):
    read = resolve(Recipe, recipe("flag: true\neither: false\nextra: {x: true, y: [false]}\n"))
    assert (read.flag, read.either, read.extra) == (True, False, {"x": True, "y": [False]})


def test_python_callers_are_held_to_the_same():
    for values in ({"count": True}, {"learning_rate": float("nan")}, {"extra": {"x": float("inf")}}, {"nmae": "x"}):
        with pytest.raises(ValidationError):
            Recipe(**values)  # pyright: ignore[reportArgumentType]  the mistakes under test
    with pytest.raises(ValidationError):
        Recipe().name = "changed"  # pyright: ignore[reportAttributeAccessIssue]  sections are frozen


@pytest.mark.parametrize("rate", ["-1e-5", "0", "0.0", ".nan", ".inf", "true"])
def test_a_learning_rate_that_cannot_train_is_refused(recipe, rate):  # bad input 42
    assert ":learning_rate" in str(refused(recipe(f"learning_rate: {rate}\n"), schema=TrainSettings).where)


@pytest.mark.parametrize("size", ["0", "-4", "2.5", "true", "null"])
def test_a_batch_size_that_cannot_train_is_refused(recipe, size):  # bad input 46
    assert ":batch_size" in str(refused(recipe(f"batch_size: {size}\n"), schema=TrainSettings).where)


# ---- overrides


def test_overrides_are_yaml_and_make_the_sections_they_need(recipe):
    read = resolve(
        Recipe,
        recipe("name: a\npart: {rate: 1}\n"),
        [
            "part.rate=1e-5",
            "seeds=[1, 2]",
            "arms.new.rate=2",
            "maybe.label=x=y",
            "when=never",
            "name='5'",
            "extra={a: 1}",
        ],
    )
    assert (read.part.rate, read.seeds, read.arms["new"].rate) == (1e-5, [1, 2], 2.0)
    assert read.maybe is not None
    assert (read.maybe.label, read.when, read.name, read.extra) == ("x=y", "never", "5", {"a": 1})


def test_null_takes_a_section_away(recipe):
    assert resolve(Recipe, recipe("maybe: {rate: 1}\n"), ["maybe=null"]).maybe is None


def test_the_last_override_wins(recipe):
    assert resolve(Recipe, recipe("count: 2\n"), ["count=3", "count=4"]).count == 4


@pytest.mark.parametrize(
    ("overrides", "params"),
    [
        (["objective.name=sft"], {}),
        (["objective.name=r-eaft"], {"tau": 7.0}),
        (["objective.name=r-eaft-recent", "objective.params={tau: 3.0}"], {"tau": 3.0}),
        (["objective.params.tau=3.0", "objective.name=r-eaft-recent"], {"tau": 3.0}),
        (["objective={name: r-eaft, params: {tau: 3.0}}", "objective.name=sft"], {}),
    ],
)
def test_another_name_leaves_the_parameters_of_the_other_behind(recipe, overrides, params):
    path = recipe("objective: {name: r-eaft, params: {tau: 7.0}}\n")
    read = resolve(KnowledgeUpdateRecipe, path, overrides)
    assert read.objective.params == params


def test_defaults_alone_can_be_overridden():
    assert resolve(Recipe, None, ["count=7"]) == Recipe(count=7)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("count=0", "greater than or equal to 1"),
        ("part.rat=1", "unknown key 'rat'"),
        ("prt.rate=1", "unknown key 'prt'"),
        ("learing_rate=1", "unknown key 'learing_rate'"),
        ("arms.x.rate=-1", "greater than 0"),
        ("name.x=1", "holds a value"),
        ("count", "no setting"),
        ("=5", "no setting"),
        ("part..rate=1", "no setting"),
        ("seeds=[1", "not readable as YAML"),
        ("name=!!python/name:os.system", "tag"),
        ("seeds=[true]", "not true or false"),
    ],
)
def test_a_wrong_override_is_blamed_itself_not_the_file(recipe, override, told):
    error = refused(recipe("name: a\ncount: 3\n"), "count=5", override)
    assert told in error.what
    assert str(error.where).startswith(f"command line: {override}")


def test_a_fault_of_the_file_is_not_blamed_on_an_override(recipe):
    path = recipe("name: a\npart:\n  rate: -1\n")
    assert refused(path, "part.label=b", "count=2").where == f"{path}:3:part.rate"


# ---- and back


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    [
        "1e5",
        "1e-5",
        "no",
        "yes",
        "010",
        "0x1f",
        "0o7",
        "1:30",
        "2024-01-01",
        "null",
        "~",
        "",
        "true",
        ".nan",
        "=",
        "<<",
        "1_0",
    ]
)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=6,
)


@given(
    name=texts,
    rate=st.floats(1e-300, 1e300),
    extra=st.dictionaries(texts, values, max_size=4),
    seeds=st.lists(st.integers()),
)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back_alike(name, rate, extra, seeds):
    section = Recipe(name=name, part=Part(rate=rate, label=name), extra=extra, seeds=seeds, arms={"no": Part()})
    text = dump_yaml(section)
    assert Recipe.model_validate(dict(load_yaml(text))) == section
    assert Recipe.model_validate(yaml.safe_load(text)) == section, "another reader of YAML sees something else"


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_one_clear_error(text):
    try:
        read = load_yaml(text)
    except UserError as error:
        assert str(error)
    else:
        assert isinstance(read, dict)


def test_nearest():
    known = ["learning_rate", "epochs", "batch_size"]
    assert nearest("learing_rate", known) == "learning_rate"
    assert nearest("Batch-Size", known) == "batch_size"
    assert nearest("zebra", known) is None
    assert nearest("x", []) is None


def test_a_secret_in_the_environment_is_never_read_into_a_recipe(recipe, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in dump_yaml(resolve(Recipe, recipe("name: ${HF_TOKEN} $HF_TOKEN\n")))
    assert os.environ["HF_TOKEN"] == "hf_secret"
