"""Grades of answers that talk: every shipped call in both forms, and what people write around calls and facts."""

import json
from importlib.resources import files

import pytest

from equipoise.errors import UserError
from equipoise.metrics.functions import function_code, run_unit_tests
from equipoise.metrics.grading import grade, kind_of


def _rows(name):
    text = files("equipoise.testbed").joinpath("assets", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


CHANGES = [(row["id"], row["new"], row["old"]) for row in _rows("api_changes.jsonl")]
CALLS = CHANGES + [(row["id"], row["answer"], None) for row in _rows("api_facts.jsonl")]
FORMS = {  # the answer, and the text it continues, if it is asked in that form
    "bare": ("{}", None),
    "fenced": ("You can do it like this:\n\n```python\nresult = {}\nprint(result)\n```\n\nThis does it.", None),
    "cut": ("Do it like this:\n\n```python\n{}\nfor each in range(3):\n    print(each, sor", None),
    "inline": ("You can use `{}` for that.", None),
    "prose": ("To do that, call {} and look at the result.", None),
    "prompt": (">>> {}\n42", None),
    "completion": (" {}\nprint(result)\n\n# something else\nresult = other(1)\n", "import this\n\n# do it\nresult ="),
    "argument": ("{})\n```\n\nThis prints it.", "# do it\nprint("),
    "statement": ("{}\n", "# do it\n"),
}
BESIDE = "Use `{}`.\n\nYou can also use this:\n```python\n{}\n```"


@pytest.mark.parametrize("form", FORMS)
def test_every_shipped_call_is_read_in_every_form(form):
    answer, prompt = FORMS[form]
    for name, new, old in CALLS:
        grades = grade(answer.format(new), new, old=old, prompt_code=prompt, cut=form == "cut")
        assert (grades.kind, grades.exact, grades.call, grades.stated) == ("call", 1.0, 1.0, None), name
        assert (grades.published is None) == (old is None), name


@pytest.mark.parametrize("form", FORMS)
def test_every_old_call_is_wrong_in_every_form(form):
    answer, prompt = FORMS[form]
    for name, new, old in CHANGES:
        grades = grade(answer.format(old), new, old=old, prompt_code=prompt, cut=form == "cut")
        assert (grades.exact, grades.call) == (0.0, 0.0), name


def test_offering_both_calls_is_wrong_and_naming_the_old_one_as_outdated_is_not():
    for name, new, old in CHANGES:
        for first, second in ((old, new), (new, old)):
            grades = grade(BESIDE.format(first, second), new, old=old)
            assert (grades.exact, grades.call) == (0.0, 0.0), name
        grades = grade(f"Instead of `{old}`, which was removed, use `{new}`.", new, old=old)
        assert (grades.exact, grades.call) == (1.0, 1.0), name


WORTHLESS = [
    "",
    "asdf jkl",
    "I do not know.",
    "That depends on your data and on what you want.",
    "```python\n```",
    "42",
    "()",
]


@pytest.mark.parametrize("answer", WORTHLESS)
@pytest.mark.parametrize("prompt", [None, "result =", "# do it\n"])
def test_gibberish_and_prose_without_code_score_nothing(answer, prompt):
    for _, new, old in CALLS[::7]:
        grades = grade(answer, new, old=old, prompt_code=prompt)
        assert (grades.exact, grades.call) == (0.0, 0.0)


def _call(answer, new, old=None, **options):
    return grade(answer, new, old=old, kind="call", **options).call


@pytest.mark.parametrize(
    ("new", "old", "answer"),
    [
        ("np.prod(x)", "np.product(x)", "```python\nimport numpy\ntotal = numpy.prod(values, axis=0)\n```"),
        ("np.prod(x)", "np.product(x)", "```python\nfrom numpy import prod\nprint(prod([1, 2]))\n```"),
        ("np.prod(x)", "np.product(x)", "```python\nfrom numpy import prod as p\np([1, 2])\n```"),
        ("np.prod(x)", "np.product(x)", "```python\nimport numpy as xp\nxp.prod(a)\n```"),
        ("np.prod(x)", "np.product(x)", "```python\nfrom numpy import *\nprod(a)\n```"),
        ("np.prod(x)", "np.product(x)", "```python\nmultiply = np.prod\nmultiply(a)\n```"),
        ("np.prod(x)", "np.product(x)", "You can use the `numpy.prod` function."),
        ("np.prod(x)", "np.product(x)", "Use numpy.prod for that."),
        ("np.all(x)", "np.alltrue(x)", "In NumPy, you can use the `all()` function to check numpy arrays."),
        ("df.items()", "df.iteritems()", "```python\nfor name, column in frame.items():\n    print(name)\n```"),
        ("df.items()", "df.iteritems()", "You can use the `items()` method."),
        ("df.items()", "df.iteritems()", "Use `DataFrame.items`."),
        ("df.items()", "df.iteritems()", "Use `pd.DataFrame(data).items()`."),
        ("x.ewm(span=3).mean()", "pd.ewma(x, span=3)", "```python\nsmooth = df['a'].ewm(alpha=0.5).mean()\n```"),
        ("x.rolling(3).mean()", "pd.rolling_mean(x, 3)", "```python\nr = s.rolling(window=3)\nprint(r.mean())\n```"),
        ("x.rolling(3).mean()", "pd.rolling_mean(x, 3)", "Use the `rolling` method with the `mean` function."),
        ("datetime.datetime.now(datetime.UTC)", "datetime.datetime.utcnow()",
         "```python\nfrom datetime import datetime, timezone\nnow = datetime.now(timezone.utc)\n```"),
        ("Word2Vec(texts, epochs=5)", "Word2Vec(texts, iter=5)",
         "`model = Word2Vec(sentences, min_count=1, epochs=10)`"),
        ("OneHotEncoder(sparse_output=False)", "OneHotEncoder(sparse=False)",
         "Create a `OneHotEncoder` with the argument `sparse_output=False`."),
        ("SGDClassifier(loss='log_loss')", "SGDClassifier(loss='log')",
         '`clf = SGDClassifier(loss="log_loss", alpha=1)`'),
        ("df.resample('ME')", "df.resample('M')", "`df.resample(rule='ME').sum()`"),
        ("select(table)", "select([table])",
         "```python\nfrom sqlalchemy import select\nq = select(User.name, User.id)\n```"),
        ("session.execute(text('select 1'))", "session.execute('select 1')",
         "```python\nquery = text('select name from users')\ndb.execute(query)\n```"),
        ("client.setex(name, 60, value)", "client.setex(name, value, 60)", "`r.setex('key', 3600, data)`"),
        ("connection.execute(query)", "engine.execute(query)",
         "```python\nwith engine.connect() as conn:\n    conn.execute(query)\n```"),
        ("session.get(User, 1)", "session.query(User).get(1)", "`db.get(Person, key)`"),
        ("model.wv.most_similar(word)", "model.most_similar(word)",
         "```python\nwv = model.wv\nwv.most_similar('a')\n```"),
        ("isinstance(x, collections.abc.Mapping)", "isinstance(x, collections.Mapping)",
         "```python\nfrom collections.abc import Mapping\nif isinstance(x, Mapping):\n    pass\n```"),
        ("model_selection.train_test_split(x, y)", "cross_validation.train_test_split(x, y)",
         "```python\nfrom sklearn.model_selection import train_test_split\na, b = train_test_split(x, y)\n```"),
        ("pytest.fixture()", "pytest.yield_fixture()",
         "```python\nimport pytest\n\n@pytest.fixture\ndef f():\n    yield 1\n```"),
        ("x @ y", "np.matmul(x, y)", "```python\nz = a @ b\n```"),
        ("pd.concat([df, other])", "df.append(other)",
         "```python\nparts = []\nfor each in frames:\n    parts.append(each)\ndf = pd.concat(parts)\n```"),
        ("tokenizer(texts)", "tokenizer.batch_encode_plus(texts)",
         "```python\ntokenizer = AutoTokenizer.from_pretrained(name)\nbatch = tokenizer(texts, padding=True)\n```"),
    ],
)  # fmt: skip
def test_the_new_call_is_known_by_its_name(new, old, answer):
    assert _call(answer, new, old) == 1.0


@pytest.mark.parametrize(
    ("new", "old", "answer"),
    [
        ("np.prod(x)", "np.product(x)", "```python\nimport math\nmath.prod(x)\n```"),
        ("np.prod(x)", "np.product(x)", "```python\ndef prod(x):\n    return x\n\nprod(a)\n```"),
        ("np.prod(x)", "np.product(x)", "```python\nfrom numpy import product as prod\nprod(a)\n```"),
        ("np.prod(x)", "np.product(x)", "```python\n# np.prod(x)\nprint('np.prod(x)')\n```"),
        ("np.all(x)", "np.alltrue(x)", "```python\nall(x)\n```"),
        ("sum(data)", None, "```python\nimport numpy as np\nnp.sum(data)\n```"),
        ("sum(data)", None, "```python\ndef sum(data):\n    return data[0]\n\nsum(data)\n```"),
        ("' '.join(words)", None, "```python\nimport os\nos.path.join(a, b)\n```"),
        ("x.rolling(3).mean()", "pd.rolling_mean(x, 3)", "`x.mean()`"),
        ("df.map(f)", "df.applymap(f)", "```python\nimport jax\njax.tree.map(f, x)\n```"),
        ("Word2Vec(texts, epochs=5)", "Word2Vec(texts, iter=5)", "`Word2Vec(texts)`"),
        ("Word2Vec(texts, epochs=5)", "Word2Vec(texts, iter=5)", "`Word2Vec(texts, iter=5, epochs=5)`"),
        ("OneHotEncoder(sparse_output=False)", "OneHotEncoder(sparse=False)", "`OneHotEncoder` with `sparse=False`"),
        ("SGDClassifier(loss='log_loss')", "SGDClassifier(loss='log')", "`SGDClassifier(loss='hinge')`"),
        ("RocCurveDisplay.from_estimator(m, x, y)", "plot_roc_curve(m, x, y)",
         "`PrecisionRecallDisplay.from_estimator(m, x, y)`"),
        ("isinstance(x, pd.CategoricalDtype)", "pd.api.types.is_categorical_dtype(x)", "`isinstance(x, str)`"),
        ("model_selection.train_test_split(x, y)", "cross_validation.train_test_split(x, y)",
         "`train_test_split(x, y)`"),
        ("client.setex(name, 60, value)", "client.setex(name, value, 60)", "`r.setex('key', data, 3600)`"),
        ("connection.execute(query)", "engine.execute(query)",
         "```python\ne = create_engine(url)\nengine.execute(query)\n```"),
        ("models.ForeignKey(User, on_delete=models.CASCADE)", "models.ForeignKey(User)", "`models.ForeignKey(Person)`"),
        ("x @ y", "np.matmul(x, y)", "```python\nz = a * b\n```"),
        ("df.items()", "df.iteritems()", "```python\nd = {'a': 1}\nfor k, v in d.items():\n    print(k)\n```"),
        ("pd.concat([df, other])", "df.append(other)", "```python\ndf = df.append(other)\n```"),
        ("session.get(User, 1)", "session.query(User).get(1)", "```python\nimport requests\nrequests.get(url)\n```"),
    ],
)  # fmt: skip
def test_another_call_is_not_taken_for_it(new, old, answer):
    assert _call(answer, new, old) == 0.0


@pytest.mark.parametrize(
    ("tail", "score"), [("np.prod(x)\n", 1.0), ("np.prod(x)", 1.0), ("np.prod(x", 0.0), ("np.prod", 0.0)]
)
def test_a_cut_answer_is_graded_on_what_is_whole(tail, score):
    for answer, prompt in ((f"```python\nimport numpy as np\n\nresult = {tail}", None), (f" {tail}", "result =")):
        assert _call(answer, "np.prod(x)", "np.product(x)", prompt_code=prompt, cut=True) == score


@pytest.mark.parametrize(
    ("answer", "exact"),
    [
        ("```python\nx = np.prod(x)\n```", 1.0),
        ("```python\ndef f(x):\n    return np.prod( x )\n```", 1.0),
        ("```python\nprint(np.prod(x), 1)\n```", 1.0),
        ("```python\ny = np.prod(x) + 1\n```", 0.0),
        ("```python\ny = np.prod(z)\n```", 0.0),
        ("```python\ny = numpy.prod(x)\n```", 0.0),
        ("```python\nnp.prod(x)\nnp.product(x)\n```", 0.0),
    ],
)
def test_exact_wants_the_syntax_of_gold_in_a_statement_of_its_own(answer, exact):
    assert grade(answer, "np.prod(x)", old="np.product(x)").exact == exact


def test_the_published_rule_stays_beside_the_others():
    assert grade("Use np.prod(x).", "np.prod(x)", old="np.product(x)").published == 1.0
    assert grade("no idea", "np.prod(x)", old="np.product(x)").published == 0.5
    assert grade("Paris", "Paris", old="Rome").published is None


def test_an_alias_that_the_prompt_imports_gives_gold_its_meaning():
    prompt = "import acme.tools as t\nresult ="
    assert _call(" t.fetch(1)", "t.fetch(x)", "t.get(x)", prompt_code=prompt) == 1.0
    assert _call(" t.get(1)", "t.fetch(x)", "t.get(x)", prompt_code=prompt) == 0.0


CODE = "def double(n):\n    return 2 * n\n"
TESTS = "assert double(2) == 4"


@pytest.mark.parametrize(
    ("answer", "prompt", "score"),
    [
        (CODE, None, 1.0),
        (f"Sure! Here it is:\n\n```python\n{CODE}\n# Example\nprint(double(3))\n```\n\nIt doubles.", None, 1.0),
        (f"```python\nimport os\n\n{CODE}```", None, 1.0),
        ("```python\ndef double(value: int) -> int:\n    '''Double it.'''\n    return 2 * value\n```", None, 1.0),
        ("n):\n    return 2 * n\n\nprint(double(4))\n", "# double a number\ndef double(", 1.0),
        ("\n    return 2 * n\n```\n\nThis doubles.", "def double(n):", 1.0),
        (f"```python\n{CODE}\nfor each in range(9):\n    print(dou", None, 1.0),
        ("```python\ndef double(n):\n    return n\n```", None, 0.0),
        ("```python\ndef twice(n):\n    return 2 * n\n```", None, 0.0),
        ("You can multiply the number by two.", None, 0.0),
        ("asdf jkl", None, 0.0),
        ("```python\ndef double(n):\n    return 2 *", None, 0.0),
    ],
)
def test_a_function_is_read_out_of_an_answer(answer, prompt, score):
    grades = grade(answer, CODE, prompt_code=prompt)
    assert (grades.kind, grades.exact, grades.call, grades.right) == ("function", score, None, score)


def test_unit_tests_run_on_the_function_with_what_it_needs():
    answer = "Like so:\n```python\nimport math\nBASE = 2\n\ndef helper(n):\n    return math.prod([BASE, n])\n\n"
    answer += "def double(n):\n    return helper(n)\n\nn = int(input())\nprint(double(n))\n```"
    assert grade(answer, CODE).exact == 0.0
    code = function_code(answer, [CODE])[-1]
    assert run_unit_tests(code, TESTS)
    assert not run_unit_tests(answer, TESTS)


@pytest.mark.parametrize(
    ("gold", "old", "kind"),
    [
        ("pd.concat([a, b])", None, "call"),
        ("x = f()", None, "call"),
        ("x @ y", "np.matmul(x, y)", "call"),
        ("x @ y", None, "text"),
        ("def f(x):\n    return x", None, "function"),
        ("import math\n\ndef f(x):\n    return math.sqrt(x)", None, "function"),
        ("Tol", None, "text"),
        ("Mercury (Hg)", None, "text"),
        ("18 March 2014", None, "text"),
        ("2014", "2013", "text"),
        ("f(", None, "text"),
    ],
)
def test_the_kind_follows_the_form_of_gold(gold, old, kind):
    assert kind_of(gold, old) == kind


@pytest.mark.parametrize(
    "options",
    [
        {"gold": "f(x)", "old": "f( x )"},
        {"gold": "Paris", "old": " Paris"},
        {"gold": "not python at all", "kind": "call"},
        {"gold": "Paris", "kind": "sonnet"},
    ],
)
def test_an_item_that_cannot_be_graded_is_an_error(options):
    with pytest.raises(UserError):
        grade("f(x)", **options)
