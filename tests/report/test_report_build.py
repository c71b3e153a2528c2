import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_run import HOSTILE, HOSTILE_LINK, make_run
from html_page import Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.metrics.detection import detection
from equipoise.protocols.analysis import analyze
from equipoise.records import Result
from equipoise.report.build import build_report, render
from equipoise.report.plane import weight_colour
from equipoise.report.reading import read_run

SECTIONS = ["verdicts", "arms", "changes", "trade-off", "curves", "plane", "heat", "detection", "missed", "setup"]


@pytest.fixture(scope="module")
def text(full_run, tmp_path_factory):
    return build_report(full_run, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_is_there_and_none_is_left_out(page):
    assert list(page.sections) == SECTIONS
    assert "Left out" not in "".join(page.sections.values())
    # trade-offs, curves, one plane an arm, weight against shock, detection
    assert page.count("svg") == 5 + 3 + 5 + 1 + 4


def test_verdicts_come_in_words_with_a_mark(page):
    shown = page.sections["verdicts"]
    for claim, mark, word in [
        ("R-EAFT corrects more than SFT", "✗", "not supported"),
        ("R-EAFT and SFT retain alike", "?", "undecided"),
        ("R-EAFT corrects more than EAFT", "✓", "supported"),
        ("Variance", "–", "cannot be tested"),
    ]:
        assert claim in shown
        assert re.search(rf"{re.escape(mark)}\s+{word}", shown), word
    assert "p for the claim 4.5 · 10⁻⁶" in shown


def test_the_table_has_arms_intervals_checks_and_the_untrained_model(page, full_run):
    shown = page.sections["arms"]
    analysis = json.loads((full_run / "analysis.json").read_text())
    for name in analysis["arms"]:
        for task, scores in analysis["arms"][name].items():
            nats = task in ("drift", "held-out")
            assert (f"{scores['mean']:.3f}" if nats else f"{100 * scores['mean']:.1f}%") in shown
            assert (f"{scores['ci'][0]:.3f} to " if nats else f"{100 * scores['ci'][0]:.1f} to ") in shown
    assert "untrained model" in shown and "2.359" in shown and "knew 59 of 60" in shown
    assert "n = 50" in shown and "n = 59 of 60 that the untrained model knew" in shown
    assert re.search(r"✗\s+retention", shown) and re.search(r"✓\s+variance", shown)


def test_text_of_models_and_data_never_becomes_markup(text, page):
    assert page.count("script") == 0
    assert page.count("img") == 0
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4  # description, claim, note, manifest and more
    assert HOSTILE in page.sections["verdicts"] and HOSTILE in page.sections["setup"]
    assert HOSTILE_LINK in page.sections["missed"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_hostile_names_and_tokens_are_text_too(tmp_path):
    run = make_run(tmp_path / "run", arms=["sft", "r-eaft"], seeds=[42, 123])
    for file in run.rglob("*.json*"):
        named = file.read_text().replace('"sft"', json.dumps(HOSTILE + "$x^")).replace('"concat"', json.dumps(HOSTILE))
        file.write_text(named)
    page = Page(render(read_run(run)))
    assert page.count("script") == 0
    assert HOSTILE + "$x^" in page.sections["arms"]
    assert HOSTILE in page.sections["heat"]
    assert "Left out" not in page.sections["plane"]


def test_nothing_is_fetched(text, page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("#", "data:image/png;base64,")), (tag, name, target[:60])
    assert page.count("link") == 0 and page.count("iframe") == 0
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL)) + "".join(
        str(attributes.get("style")) for _, attributes in page.tags
    )
    assert "@import" not in styles and not re.search(r"url\((?!#)", styles)
    assert any(a.get("http-equiv") == "Content-Security-Policy" for _, a in page.tags)


def test_ids_are_unique_and_every_reference_has_a_target(text, page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {a.get("href") or a.get("xlink:href") or "" for _, a in page.tags}
    used = {target[1:] for target in used if target.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(ids)


def test_figures_speak_and_their_text_is_never_small(text, page):
    labels = [a.get("aria-label") for tag, a in page.tags if tag == "svg"]
    assert all(labels) and len(set(labels)) == len(labels)
    assert "R-EAFT: retention 9" in " ".join(str(label) for label in labels)
    widths = {float(a["viewbox"].split()[2]) for tag, a in page.tags if tag == "svg" and a.get("viewbox")}
    sizes = {
        float(size)
        for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        for size in re.findall(r"font-size: ([\d.]+)px", svg)
    }
    assert widths == {340.0}
    assert min(sizes) * 320 / 340 >= 9  # on the narrowest phones


def test_the_report_is_small_quick_and_the_same_each_time(full_run, tmp_path):
    start = time.process_time()
    first = build_report(full_run, tmp_path / "a.html").read_bytes()
    assert time.process_time() - start < 10
    assert len(first) < 2_000_000
    shutil.copytree(full_run, tmp_path / "copy" / full_run.name)
    second = build_report(tmp_path / "copy" / full_run.name)
    assert second == tmp_path / "copy" / full_run.name / "report.html"
    assert second.read_bytes() == first


def test_the_run_is_only_read(small_run):
    before = {path: path.read_bytes() for path in small_run.rglob("*") if path.is_file()}
    build_report(small_run)
    after = {path: path.read_bytes() for path in small_run.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {small_run / "report.html"}
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize(
    ("file", "section"),
    [
        ("analysis.json", "verdicts"),
        ("cells", "curves"),
        ("changes.jsonl", "changes"),
        ("tokens.jsonl", "plane"),
        ("tokens.jsonl", "heat"),
        ("detection.json", "detection"),
        ("missed.json", "missed"),
        ("manifest.json", "setup"),
        ("config.yaml", "setup"),
    ],
)
def test_a_missing_file_leaves_out_its_section_with_a_sentence(small_run, file, section):
    target = small_run / file
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    page = Page(render(read_run(small_run)))
    assert list(page.sections) == SECTIONS
    assert "Left out" in page.sections[section]
    others = {"missed", "trade-off"} - {section} if file != "analysis.json" else {"missed"}
    assert not any("Left out" in page.sections[name] for name in others)


def test_without_an_analysis_the_table_still_has_means(small_run):
    (small_run / "analysis.json").unlink()
    shown = Page(render(read_run(small_run))).sections["arms"]
    rows = json.loads((small_run / "results.json").read_text())
    mine = [row["value"] for row in rows if row["method"] == "sft" and row["task"] == "correction"]
    assert f"{100 * sum(mine) / len(mine):.1f}%" in shown
    assert "0.0%" in shown and "untrained model" in shown


def plane_of(text: str, label: str) -> str:
    (found,) = [svg for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if f"weight that {label} gives" in svg]
    return found


def test_an_arm_without_a_known_form_has_its_tokens_coloured(small_run):
    assert "<image" in plane_of(render(read_run(small_run)), "SFT")
    config = small_run / "config.yaml"
    config.write_text(config.read_text().replace("name: sft", "name: eaft-topk"))
    coloured = plane_of(render(read_run(small_run)), "SFT")
    assert "<image" not in coloured
    assert weight_colour(1.0) in coloured  # what every row of this run says


def test_a_single_run_makes_a_report_too(full_run, tmp_path):
    run = tmp_path / "single"
    run.mkdir()
    (run / "config.yaml").write_text("name: mine\nobjective: {name: eaft}\nseed: 3\n")
    shutil.copy(full_run / "cells" / "eaft" / "seed-42" / "metrics.jsonl", run)
    rows = json.loads((full_run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps([r for r in rows if r["method"] in ("eaft", "untrained")][:8]))
    page = Page(render(read_run(run)))
    assert page.count("svg") >= 3
    assert "EAFT" in page.sections["curves"] and "EAFT" in page.sections["arms"]
    assert "analysis.json is not there" in page.sections["verdicts"]


@pytest.mark.parametrize("name", ["analysis.json", "detection.json", "missed.json", "results.json", "manifest.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}", "null", '"x"', '[1, "a"]', '{"arms": 3, "by_token": []}'])
def test_damaged_files_never_crash(full_run, tmp_path, name, content):
    for other in ("config.yaml", "results.json", "missed.json"):
        shutil.copy(full_run / other, tmp_path)
    (tmp_path / name).write_text(content)
    assert list(Page(render(read_run(tmp_path))).sections) == SECTIONS


JUNK = st.sampled_from([None, [], {}, "x", -1, 1e300, float("nan"), True, [None], {"a": None}, HOSTILE])


@pytest.mark.parametrize("key", ["arms", "seeds", "tasks", "untrained", "hypotheses", "safety", "notes"])
@pytest.mark.parametrize("junk", [-1, "x", [None], {"a": None}, None])
def test_a_damaged_part_of_the_analysis_never_crashes(full_run, tmp_path, key, junk):
    shutil.copy(full_run / "results.json", tmp_path)
    analysis = json.loads((full_run / "analysis.json").read_text())
    (tmp_path / "analysis.json").write_text(json.dumps({**analysis, key: junk}))
    assert list(Page(render(read_run(tmp_path))).sections) == SECTIONS


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_junk_anywhere_in_a_file_never_crashes(full_run, tmp_path_factory, data):
    run = make_run(tmp_path_factory.mktemp("junk"), arms=["sft", "r-eaft"], seeds=[42, 123])
    shutil.rmtree(run / "cells")
    (run / "tokens.jsonl").unlink()
    file = run / data.draw(st.sampled_from(["analysis.json", "detection.json", "missed.json", "results.json"]))
    value = json.loads(file.read_text())
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans())):
            break
        node = node[key]
    node[key] = data.draw(JUNK)
    file.write_text(json.dumps(value))
    page = Page(render(read_run(run)))
    assert list(page.sections) == SECTIONS
    assert page.count("script") == 0


def test_a_folder_without_a_run_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        build_report(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt"):
        build_report(tmp_path)


def test_the_report_never_imports_torch(full_run, tmp_path):
    code = "import sys, pathlib; from equipoise.report.build import build_report; from equipoise.report import picture;"
    code += "build_report(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, full_run, tmp_path / "r.html"], check=True, timeout=60)


def test_templates_are_part_of_the_package():
    import equipoise.report

    folder = Path(str(equipoise.report.__file__)).parent / "templates"
    assert {path.name for path in folder.iterdir()} >= {"report.html", "parts.html", "style.css"}


def test_it_draws_what_the_analysis_and_the_detection_really_write(full_run, tmp_path):
    run = tmp_path / "real"
    shutil.copytree(full_run, run)
    results = [Result(**row) for row in json.loads((run / "results.json").read_text())]
    analysis = analyze(results, protocol="a")
    (run / "analysis.json").write_text(json.dumps(analysis))
    tokens = [json.loads(line) for line in (run / "tokens.jsonl").read_text().splitlines()]
    found = detection(tokens, tau_in_use=5.0, vocab_size=4096, resamples=0)
    (run / "detection.json").write_text(json.dumps(found))
    page = Page(render(read_run(run)))
    assert "Left out" not in "".join(page.sections.values())
    assert analysis["hypotheses"]
    for row in analysis["hypotheses"]:
        assert row["sentence"] in page.sections["verdicts"]
    assert f"{found['by_token']['average_precision']:.2f} by token" in page.sections["detection"]
