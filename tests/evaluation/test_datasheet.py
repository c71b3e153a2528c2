"""The data sheet's readings against transformers' own forward pass, one document at a time."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from equipoise.evaluation.datasheet import datasheet, markdown, read, summary
from equipoise.testbed.parts.archive import Archive
from equipoise.testbed.settings import WorldSettings
from equipoise.testbed.world import World, datasheet_path, model_path

QUESTIONS = [
    ("How do I loop over the columns of a data frame with pandas?", "df.items()"),
    ("How do I loop over the columns of a data frame with pandas?", "df.iteritems()"),
    ("Repeat: df.head()", "df.head()"),
    (
        "Write a Python function `average` to compute the mean of a list of numbers.",
        "def average(numbers):\n    return 0",
    ),
]


@pytest.fixture(scope="module")
def shipped():
    model = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(model_path())


def test_readings_are_those_of_each_document_alone(shipped):
    model, tokenizer = shipped
    readings = read(model, tokenizer, QUESTIONS)
    for prompt, answer in QUESTIONS:
        asked = [{"role": "user", "content": prompt}]
        start = len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False))
        ids = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": answer}], return_dict=False)
        with torch.no_grad():
            p = model(torch.tensor([ids])).logits[0, start - 1 : -1].double().softmax(-1)
        reading = readings[prompt, answer]
        assert list(reading.tokens) == ids[start:]
        assert tokenizer.decode(reading.tokens) == answer + tokenizer.eos_token
        for n, token in enumerate(ids[start:]):
            assert reading.nll[n] == pytest.approx(-math.log(p[n, token].item()), rel=1e-3, abs=1e-5)
            h = torch.special.entr(p[n]).sum().item() / math.log(p.shape[-1])
            assert reading.h[n] == pytest.approx(h, rel=1e-3, abs=1e-5)
        assert reading.greedy == (p.argmax(-1).tolist() == ids[start:])


def test_a_sheet_of_part_of_the_world_repeats_what_the_shipped_sheet_says():
    """Measured again here, on the archive alone, and compared with the figures that were shipped."""
    shipped = json.loads(datasheet_path().read_text(encoding="utf-8"))
    again = datasheet(model_path(), World.build(WorldSettings(), [Archive()]))
    recorded = {row["class"]: row for row in shipped["classes"] if row["part"] == "archive"}
    assert {row["class"] for row in again["classes"]} == set(recorded)
    for row in again["classes"]:
        before = recorded[row["class"]]
        assert row["n"] == before["n"]
        assert row["exact_match_taught"] == pytest.approx(before["exact_match_taught"], abs=0.01)
        assert row["first_token"]["h"]["median"] == pytest.approx(before["first_token"]["h"]["median"], rel=0.02)
        assert row["first_token"]["nll"]["median"] == pytest.approx(before["first_token"]["nll"]["median"], rel=0.02)


def test_a_class_that_is_taught_nothing_has_no_share_of_what_was_taught():
    sheet = json.loads(datasheet_path().read_text(encoding="utf-8"))
    columns, rows = summary(sheet)
    assert all(len(row) == len(columns) for row in rows)
    for row in rows:
        assert (row[columns.index("taught: seen %")] == "–") == (row[1] == "unknown")
    assert len(markdown(sheet).splitlines()) == len(rows) + 2
