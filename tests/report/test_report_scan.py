"""The page of a scan, from its folder alone."""

import json
import re
import subprocess
import sys

import pytest
from fake_run import HOSTILE
from html_page import Page

from equipoise.errors import UserError
from equipoise.report.build import build_report
from equipoise.report.scan import COLOURS, WORDS, build_scan_report

CLASSES = ("stable", "uncertain", "conflict", "unknown", "form")


def token(text, nll, h, kind, expected=None):
    return {"token": text, "nll": nll, "h": h, "class": kind, "expected": expected}


def found(**changes):
    listed = {
        "item": f"row {HOSTILE}",
        "source": "rows.jsonl:7",
        "prompt": f"What is {HOSTILE}? " + "long " * 300,
        "tokens": 200,
        "conflict": 1,
        "contradiction": 9.93,
        "start": 3,
        "at": 1,
        "shown": [
            token("The ", 0.01, 0.001, "stable"),
            token(HOSTILE, 10.0, 0.008, "conflict", "<b>mine</b>\n"),
            token("", 1.0, 0.3, "uncertain"),
        ],
    }
    counts = dict(zip(CLASSES, (900, 60, 10, 20, 10)))
    return {
        "data": f"{HOSTILE}.jsonl",
        "sha256": "ab12",
        "model": "org/model",
        "vocabulary": 152_000,
        "thresholds": {
            "sure": 0.1,
            "plausible": 0.1,
            "decided": 0.3,
            "rejected": 0.03,
            "surprising_nll": 2.30259,
            "sure_h": 0.0083793,
        },
        "n_tokens": 1000,
        "n_examples": 50,
        "n_dropped": 2,
        "tokens": counts,
        "examples": dict(zip(CLASSES, (20, 15, 9, 4, 2))),
        "examples_with_conflict": 9,
        "conclusions": {"known": 30, "form": 7, "contradicted": 9, "unknown": 4},
        "form": {
            "asked": True,
            "n": 48,
            "first": 20.5,
            "shown": 6.25,
            "better": 0.9,
            "trusted": True,
            "without": {"too few other rows": 2},
        },
        "old": {"the outdated answer": 6, "neither": 2, "the new answer": 1},
        "mean_nll": 0.5,
        "mean_h": 0.05,
        "tau": {"tau": 330.0, "flagged": 11, "hits": 10, "precision": 10 / 11, "recall": 1.0},
        "flagged_at_published_tau": 90,
        "by": {"form": [{"value": HOSTILE, "examples": 50, "with_conflict": 9, "tokens": counts}]},
        "plane": {
            "cells": 48,
            "log10_h": [-5, 0],
            "log10_nll": [-4, 1.6],
            "counts": dict(zip(CLASSES, ([[10, 12, 900]], [[36, 40, 60]], [[20, 45, 10]], [], []))),
        },
        "listed": [listed],
        "suggestion": {
            "objective": "sft",
            "tau": 330.0,
            "reasons": ["9 of 50 examples.", "Read the list."],
            "command": f"equipoise run instruct 'data.sources=[{HOSTILE}]'",
        },
        **changes,
    }


def page_of(folder, values):
    (folder / "scan.json").write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    (folder / "config.yaml").write_text("top: 20\n", encoding="utf-8")
    return build_scan_report(folder).read_text(encoding="utf-8")


def test_the_page_shows_every_part(tmp_path):
    page = Page(page_of(tmp_path, found()))
    assert list(page.sections) == ["rows", "suggestion", "contradictions", "classes", "plane", "fields", "setup"]
    assert "Left out" not in "".join(page.sections.values())
    for name, share in zip(CLASSES, ("90.0%", "6.0%", "1.0%", "2.0%", "1.0%")):
        assert name in page.sections["classes"] and share in page.sections["classes"]
    assert "Read the list." in page.sections["suggestion"]
    shown = page.sections["contradictions"]
    assert "9.9 nats more surprising" in shown and "the model would say" in shown and "rows.jsonl:7" in shown
    assert "<b>mine</b>⏎" in shown and "∅" in shown and shown.count("…") == 3
    assert "with a conflict" in page.sections["fields"] and page.count("svg") == 1
    tips = [attrs.get("title") or "" for tag, attrs in page.tags if tag == "span"]
    assert any("conflict; expected <b>mine</b>" in tip for tip in tips)


def test_rows_and_what_the_examples_did_are_told(tmp_path):
    shown = Page(page_of(tmp_path, found())).sections["rows"]
    for text in (
        "form only",
        "14.0%",
        "contradicted",
        "18.0%",
        "from 20.5 to 6.25 nats",
        "2 rows without a second reading",
    ):
        assert text in shown
    assert "the outdated answer in 6" in shown
    kept = found()["form"]
    untrusted = Page(page_of(tmp_path, found(form={**kept, "trusted": False}))).sections["rows"]
    assert "could not be told apart" in untrusted and "form=false" not in untrusted
    off = Page(page_of(tmp_path, found(form={**kept, "asked": False, "trusted": False}, old=None))).sections["rows"]
    assert "form=false" in off and "outdated" not in off


def test_what_the_data_says_is_never_markup_and_nothing_is_fetched(tmp_path):
    text = page_of(tmp_path, found())
    assert HOSTILE not in text and "<b>mine" not in text
    assert not re.search(r'(?:src|href)="(?!#)', re.sub(r'xlink:href="#[^"]*"', "", text))
    assert "default-src 'none'" in text
    assert text == page_of(tmp_path, found()) == build_report(tmp_path).read_text(encoding="utf-8")


def test_nothing_in_conflict_and_nothing_asked_for_are_told_apart(tmp_path):
    none = found(listed=[], examples_with_conflict=0, tau=None, by={})
    page = Page(page_of(tmp_path, none))
    assert "no token contradicts" in page.sections["contradictions"]
    assert "fields" not in page.sections
    assert "top=0" in Page(page_of(tmp_path, found(listed=[]))).sections["contradictions"]


@pytest.mark.parametrize("values", ["{broken", "[]", '{"n_tokens": 3}'])
def test_a_damaged_scan_is_told_and_no_crash(tmp_path, values):
    page = Page(page_of(tmp_path, values))
    assert "Left out" in page.sections["classes"] and "Left out" in page.sections["plane"]


def test_a_folder_without_a_scan_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no scan"):
        build_scan_report(tmp_path)


def test_every_class_has_a_colour_and_the_page_needs_no_torch():
    assert tuple(COLOURS) == tuple(WORDS) == CLASSES
    look = "import sys, equipoise.report.scan; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "False\n"
