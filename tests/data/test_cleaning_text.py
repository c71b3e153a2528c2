"""One spelling of texts: what is invisible goes, what is in a code block stays byte for byte."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data.clean_text import cleaned
from equipoise.data.jsonl import BadRow

DECOMPOSED, COMPOSED = "cafe\u0301", "caf\u00e9"
CASES = {
    "nothing to do": ("plain text\nof two lines\t.", "plain text\nof two lines\t.", []),
    "composed already": (COMPOSED, COMPOSED, []),
    "composition": (DECOMPOSED, COMPOSED, ["nfc"]),
    "line ends": ("a\r\nb\rc\x85d\x0ce", "a\nb\nc\nd\ne", ["control"]),
    "control characters": ("a\x01\x7f\x9fb\ufeff\u200b", "ab", ["control"]),
    "colours of a terminal": ("\x1b[1;31mred\x1b[0m", "red", ["control"]),
    "a mark behind a control character": ("e\x00\u0301", "\u00e9", ["control", "nfc"]),
    "joiners of Persian and emoji stay": ("می\u200cخواهم 👩\u200d💻", "می\u200cخواهم 👩\u200d💻", []),
    "line separators stay": ("a\u2028b", "a\u2028b", []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_text_and_what_changed_it(name):
    text, clean, rules = CASES[name]
    assert cleaned(text) == (clean, rules)


BLOCKS = {
    "backticks": f"```python\r\n{DECOMPOSED}\x01\r\n```",
    "tildes": f"~~~\n{DECOMPOSED}\x1b[0m\n~~~~",
    "indented, in a list": f"   ```\n   {DECOMPOSED}\n   ```",
    "a shorter mark inside": f"````\n```\n{DECOMPOSED}\n```\n````",
    "quoted": f"> ```\n> {DECOMPOSED}\n> ```",
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_code_block_stays_as_it_is_and_its_surroundings_do_not(name):
    block = BLOCKS[name]
    clean, rules = cleaned(f"{DECOMPOSED}\n{block}\n{DECOMPOSED}\x01")
    assert clean == f"{COMPOSED}\n{block}\n{COMPOSED}" and set(rules) == {"nfc", "control"}


def test_a_block_that_does_not_end_runs_to_the_end():
    assert cleaned(f"```\n{DECOMPOSED}\x01") == (f"```\n{DECOMPOSED}\x01", [])


def test_inline_code_and_three_backticks_within_a_line_are_text():
    assert cleaned(f"`{DECOMPOSED}` and ```{DECOMPOSED}```")[0] == f"`{COMPOSED}` and ```{COMPOSED}```"


@pytest.mark.parametrize(
    "text", ["`\x01``\nx\n```\ny\r\n```", "```\ny\x01\n``\x01`\nz\x01", "\u1fef``\ny\r\n```\nz\x01"]
)
def test_a_text_whose_code_would_become_other_code_is_refused(text):
    try:
        clean, _ = cleaned(text)
    except BadRow as bad:
        assert "code block" in bad.reason
    else:
        assert cleaned(clean) == (clean, [])


text = st.text(st.sampled_from("`~> \n\r\t\x01\x1b[0m\u0301\u1fefea\u0327é한\u1112\u1161x"), max_size=60)


@settings(max_examples=400, deadline=None)
@given(text)
def test_a_second_time_changes_nothing_and_blocks_survive(raw):
    try:
        clean, rules = cleaned(raw)
    except BadRow:
        return
    assert cleaned(clean) == (clean, []) and (rules == []) == (clean == raw)
    if "`" not in clean and "~" not in clean:
        assert unicodedata.is_normalized("NFC", clean) and not re.search("[\x00-\x08\x0e-\x1f\r]", clean)
