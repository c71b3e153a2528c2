"""The technical report: what it says is what the runs hold, and it reads the same wherever they lie."""

import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from fake_run import make_run
from fake_synthetic import make_synthetic_run
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.errors import UserError
from equipoise.protocols.analysis import analyze
from equipoise.protocols.frontier_analysis import ArmScores, analyse
from equipoise.protocols.technical_report import write_report
from equipoise.records import Prediction, Result

CELLS = [{"cell": "untrained", "seconds": 30.0, "vocab_size": 4096}, {"cell": "sft/seed-42", "seconds": 90.0}]


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def make_protocol(path):
    """A Protocol A with the analysis that a grid would have written."""
    make_run(path, arms=["sft", "eaft", "r-eaft", "r-eaft-detached"], seeds=[42, 123, 456])
    results = [Result(**row) for row in json.loads((path / "results.json").read_text())]
    predictions = [Prediction(**json.loads(row)) for row in (path / "predictions.jsonl").read_text().splitlines()]
    (path / "analysis.json").write_text(json.dumps(analyze(results, protocol="a", predictions=predictions)))
    (path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CELLS))
    command = ["equipoise", "protocol", "a", "seeds=[42,123,456]", "--out", str(path)]
    change(path / "manifest.json", command=command, commit="ab" * 20, python="3.11.9", cpus=2)
    return path


def make_frontier(path):
    """A frontier of three arms, of which one never gets to the level."""
    path.mkdir(parents=True)
    rng, arms = np.random.default_rng(3), {}
    true = {"sft": ([0.4, 1.0], [0.9, 0.5]), "sft-replay": ([0.6, 1.0], [0.95, 0.9]), "dft": ([0.1, 0.3], [1.0, 0.8])}
    for name, levels in true.items():
        shares = zip(("correction", "locality"), levels, (40, 80))
        items = {task: (rng.random((4, 2, n)) < np.array(level)[:, None]).astype(float) for task, level, n in shares}
        arms[name] = ArmScores([(1e-3, 2), (1e-3, 5)], items, np.tile([2.0, 5.0], (4, 1)))
    before = {"correction": 0.0, "locality": 1.0}
    found = analyse(arms, seeds=[1, 2, 3, 4], against="sft", levels=[0.8, 0.9], untrained=before, resamples=200)
    (path / "frontier.json").write_text(json.dumps(found))
    recipe = {"pipeline": "frontier", "arms": {name: {"name": name.removesuffix("-replay")} for name in true}}
    recipe["arms"]["sft-replay"]["rehearse"] = True
    recipe |= {"seeds": [1, 2, 3, 4], "learning_rates": [1e-3], "score_at": [2, 5], "model": {"path": "testbed"}}
    (path / "config.yaml").write_text(yaml.safe_dump(recipe | {"data": {"updates": str(path / "mine.jsonl")}}))
    command = ["equipoise", "protocol", "frontier", f"data.updates={path / 'mine.jsonl'}", "--out", str(path)]
    (path / "manifest.json").write_text(json.dumps({"schema_version": 1, "device": "cpu", "command": command}))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("technical")
    made = [make_frontier(folder / "f"), make_protocol(folder / "a"), make_synthetic_run(folder / "c", seeds=(42, 43))]
    return folder, made


@pytest.fixture(scope="module")
def report(runs):
    folder, made = runs
    out = folder / "docs" / "REPORT.md"
    result = CliRunner().invoke(app, ["protocol", "report", *map(str, made), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


def sections(text):
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def tables(text):
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def test_every_table_holds_and_every_figure_is_a_picture(report):
    text = report.read_text(encoding="utf-8")
    assert len(tables(text)) >= 10
    for lines in tables(text):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1 and set(lines[1]) == set("| -")
    named = re.findall(r"!\[[^]]+\]\((images/[\w-]+\.svg)\)", text)
    assert {path.name for path in (report.parent / "images").iterdir()} == {name.split("/")[1] for name in named}
    for name in named:
        drawn = (report.parent / name).read_text(encoding="utf-8")
        root = ElementTree.fromstring(drawn)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and "var(--" not in drawn
        ids = re.findall(r' id="([^"]+)"', drawn)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawn)) <= set(ids)


def test_sections_come_in_their_order_whatever_the_folders_are_given_in(report):
    heads = list(sections(report.read_text(encoding="utf-8")))
    assert [head.split(":")[0] for head in heads] == [
        *("In short", "What was run", "Protocol A", "The frontier", "The curriculum"),
        *("Does the shock ratio find the conflicts?", "Limits of the evidence", "How to reproduce"),
    ]


def test_what_it_says_of_a_claim_is_what_the_analysis_says(runs, report):
    analysis = json.loads((runs[0] / "a" / "analysis.json").read_text())
    found = sections(report.read_text(encoding="utf-8"))
    protocol = next(text for head, text in found.items() if head.startswith("Protocol A"))
    for row in analysis["hypotheses"]:
        assert f"**{row['id']}, {row['claim']}: {row['verdict']}.** {row['sentence']}" in protocol
        (line,) = [line for line in found["In short"].splitlines() if line.startswith(f"| {row['id']} |")]
        assert f"| {row['claim']} | {row['verdict']} |" in line
    mean = analysis["arms"]["r-eaft"]["correction"]["mean"]
    assert any(line.startswith("| r-eaft |") and f"{100 * mean:.1f}%" in line for line in protocol.splitlines())
    assert "tau 5, alpha 3, eps 1e-06, clamp 10" in protocol and "1 + alpha · min(shock / tau, clamp)" in protocol
    assert "75.0%" in protocol and "came out in the published order" in protocol


def test_the_frontier_says_what_is_kept_at_matched_correction(runs, report):
    analysis = json.loads((runs[0] / "f" / "frontier.json").read_text())
    found = sections(report.read_text(encoding="utf-8"))
    text = next(text for head, text in found.items() if head.startswith("The frontier"))
    (answer,) = analysis["answers"]
    assert answer["sentence"] in text and answer["sentence"] in found["In short"]
    kept, gaps = tables(text)[1:3]
    row = analysis["arms"]["sft-replay"]["matched"]["locality"][1]
    mine = next(line for line in kept if line.startswith("| sft-replay |")).split(" | ")[2]
    assert mine.startswith(f"{100 * row['mean']:.1f}% [{100 * row['ci'][0]:.1f}, {100 * row['ci'][1]:.1f}]")
    assert "not reached (0 of 4 seeds)" in next(line for line in kept if line.startswith("| dft |"))
    assert f"{100 * row['against']['estimate']:+.1f} points" in next(line for line in gaps if "sft-replay" in line)
    assert not any(line.startswith("| sft |") for line in gaps)
    assert "every second row to keep is trained on" in text
    assert "- Data: updates `mine.jsonl`. The updates are trained on." in text
    assert "- Training: 5 epochs, learning rate 0.001." in text


def test_what_was_run_and_what_it_does_not_show(report):
    found = sections(report.read_text(encoding="utf-8"))
    (line,) = [line for line in found["What was run"].splitlines() if line.startswith("| Protocol A")]
    assert "4 arms, 3 seeds" in line and "2.0 min" in line and f"`{'ab' * 6}`" in line and "cpu, 2 cores" in line
    assert "torch 2.13.0+cpu" in found["What was run"]
    limits = found["Limits of the evidence"]
    assert "4,096 tokens" in limits and "ln V = 8.3" in limits and "different revisions" in limits
    assert "(A 0.001)" in limits and "the frontier is what separates the two" in limits
    assert "Published arms that were not run" not in limits


def test_the_calls_would_work_elsewhere(report):
    calls = sections(report.read_text(encoding="utf-8"))["How to reproduce"]
    assert "equipoise protocol a 'seeds=[42,123,456]' --out runs/protocol-a\n" in calls
    assert "equipoise run config.yaml --out runs/protocol-frontier" in calls  # its data lay somewhere on one machine
    assert (
        "equipoise protocol report runs/protocol-a runs/protocol-frontier runs/protocol-curriculum --out docs/REPORT.md"
        in calls
    )


def test_the_same_runs_give_the_same_bytes_wherever_they_lie(runs, report, tmp_path):
    _, made = runs
    moved = [shutil.copytree(path, tmp_path / "elsewhere" / path.name) for path in made]
    again = write_report(list(reversed(moved)), tmp_path / "REPORT.md")
    assert again.read_bytes() == report.read_bytes()
    for figure in (report.parent / "images").iterdir():
        assert (tmp_path / "images" / figure.name).read_bytes() == figure.read_bytes()
    assert str(report.parents[1]) not in report.read_text(encoding="utf-8")


def test_names_from_outside_are_text(report):
    for file in [report, *(report.parent / "images").iterdir()]:
        assert "<script" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_run_alone_makes_a_report_too(runs, tmp_path, which):
    text = write_report([runs[1][which]], tmp_path / "REPORT.md").read_text(encoding="utf-8")
    assert len(re.findall("^## (?:Protocol|The)", text, re.MULTILINE)) == 1 and "None" not in text
    assert "not adjusted" not in text and "independent" not in text


def test_two_runs_of_one_kind_stand_beside_each_other(runs, tmp_path):
    other = shutil.copytree(runs[0] / "a", tmp_path / "other")
    change(other / "manifest.json", seed=7)
    text = write_report([runs[0] / "a", other], tmp_path / "REPORT.md").read_text(encoding="utf-8")
    assert "correction (1)" in text and "correction (2)" in text and "A-1, A-2 train on and ask the same items" in text
    assert (tmp_path / "images" / "report-a-2-plane.svg").is_file()


def test_a_run_that_is_named_twice_is_one(runs, tmp_path):
    text = write_report([runs[0] / "a", runs[0] / "a" / ".." / "a"], tmp_path / "REPORT.md").read_text(encoding="utf-8")
    assert "correction (1)" not in text


def test_what_is_no_finished_protocol_is_told(runs, tmp_path):
    def told(path):
        result = CliRunner().invoke(app, ["protocol", "report", str(path), "--out", str(tmp_path / "REPORT.md")])
        assert result.exit_code == 2 and not (tmp_path / "REPORT.md").exists()
        return result.output

    assert "no run directory" in told(tmp_path / "nowhere")
    cut = shutil.copytree(runs[0] / "a", tmp_path / "cut")
    (cut / "analysis.json").unlink()
    assert "not finished: 2 of 13 cells are done" in told(cut) and "goes on with it" in told(cut)
    (cut / "analysis.json").write_text("{")
    assert "damaged" in told(cut)
    (cut / "analysis.json").write_text('{"arms": {}, "seeds": [1]}')
    assert "does not have the expected form" in told(cut) and "analysis.json" in told(cut)
    config = cut / "config.yaml"
    config.write_text(config.read_text().replace("protocol: a", "protocol: null"))
    assert "no run of a protocol" in told(cut) and "a, b, s, t, frontier, curriculum" in told(cut)
    with pytest.raises(UserError, match="no run to report on"):
        write_report([], tmp_path / "REPORT.md")
