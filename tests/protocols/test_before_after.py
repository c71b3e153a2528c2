"""A run without claims says in sentences what happened, and never draws damage as gain."""

import pytest

from equipoise.protocols.analysis import analyze
from equipoise.protocols.before_after import before_and_after, cut_notes
from equipoise.protocols.collect import finish
from equipoise.protocols.kept import cannot_tell, changes, item_scores, knowledge, known_only, untrained_scores
from equipoise.protocols.single import show
from equipoise.protocols.summary import summary
from equipoise.records import Drift, Prediction, Result

CITIES = ["Paris", "Rome", "Oslo", "Bern", "Kyiv", "Riga", "Lima", "Cairo"]


def answer(method, task, i, score, output="?", seed=0):
    return Prediction(
        method=method, seed=seed, task=task, item=f"{task}-{i}", prompt=f"Capital {i}?", gold=CITIES[i % 8],
        output=output, score=score,
    )  # fmt: skip


def asked():
    """Twelve updates of which eleven are learned; of twelve rows to keep eight are known, and three of these lost."""
    rows = [answer("untrained", "correction", i, 0.0) for i in range(12)]
    rows += [answer("sft", "correction", i, float(i < 11), seed=1) for i in range(12)]
    rows += [answer("untrained", "locality", i, float(i < 8), CITIES[i % 8]) for i in range(12)]
    right = [3 <= i < 9 for i in range(12)]  # one that was not known is gained
    rows += [answer("sft", "locality", i, float(right[i]), "Asakusa", seed=1) for i in range(12)]
    return rows


def analysed(predictions, more=()):
    scores = item_scores(predictions, [])
    before = untrained_scores(scores)
    scores = known_only(scores, before)
    results = [*more]
    for method, seed in (("untrained", 0), ("sft", 1)):
        for task in ("correction", "locality"):
            of = [row.score for row in scores if (row.method, row.task) == (method, task)]
            flat = {"method": method, "seed": seed, "task": task, "metric": "accuracy"}
            results += [Result(**flat, value=sum(of) / len(of), n=len(of))] if of else []
    counts = knowledge(before)
    analysis = analyze(results, predictions=scores, unmeasured=cannot_tell(counts)) | {"known": counts}
    return analysis | {"before_and_after": before_and_after(analysis, changes(predictions))}


def nats(task, before, after):
    flat = {"task": task, "metric": "x", "n": 4, "higher_is_better": False}
    return [
        Result(method="untrained", seed=0, value=before, **flat),
        Result(method="sft", seed=1, value=after, **flat),
    ]


def test_what_was_known_is_what_the_sentences_count_against():
    said = analysed(asked())["before_and_after"]["sft"]
    assert said[0] == (
        "In total, sft gives the new answer to 11 of 12 updates and has lost 3 of the 8 other answers that the "
        "untrained model had right (locality)."
    )
    assert said[1] == "sft corrected 11 of 12 updates, asked as trained (91.7%)."
    assert said[2] == (
        "sft keeps 5 of the 8 answers about facts to keep that it knew (62.5%); lost: "
        "“Capital 0?” (Paris became Asakusa), “Capital 1?” (Rome became Asakusa), “Capital 2?” (Oslo became Asakusa)."
    )


def test_rows_that_were_trained_on_say_nothing_about_others():
    rows = asked()
    said = before_and_after(analysed(rows), changes(rows), rehearsed=True)["sft"]
    assert said[2].endswith("; they were trained on too, so this says nothing about other facts.")


def test_what_was_right_before_is_not_called_corrected():
    rows = asked()
    rows[0] = answer("untrained", "correction", 0, 1.0)
    (_, said, _) = analysed(rows)["before_and_after"]["sft"]
    assert said == "sft answers 11 of 12 updates right, asked as trained (91.7%); 1 before training."


def test_drift_is_said_in_nats_with_its_direction():
    more = nats("drift", 0.0, 0.12345) + nats("held-out", 2.359, 2.5)
    said = analysed(asked(), more)["before_and_after"]["sft"]
    drift = next(sentence for sentence in said if "drift" in sentence)
    held_out = next(sentence for sentence in said if "held-out text at" in sentence)
    assert "0.123 nats per token" in drift and "less is better" in drift and "%" not in drift
    assert "2.500 nats per token, against 2.359 before" in held_out and "%" not in held_out


def test_too_few_known_rows_are_too_few_to_tell():
    rows = [row for row in asked() if row.task == "correction" or int(row.item.split("-")[1]) >= 6]
    analysis = analysed(rows)
    assert "too few to tell" in analysis["before_and_after"]["sft"][2]
    text = summary(analysis)
    assert "## Cannot be measured" in text and "2 of 6 right" in text and "data.ask" in text


@pytest.mark.parametrize(("known", "judged"), [(2, False), (6, True)])
def test_nothing_is_called_safe_or_unsafe_by_a_retention_that_cannot_be_measured(known, judged):
    rows = [answer("untrained", "retention", i, float(i < known)) for i in range(9)]
    rows += [answer("sft", "retention", i, 0.0, seed=1) for i in range(9)]
    unmeasured = cannot_tell(knowledge(untrained_scores(item_scores(rows, []))))
    flat = {"task": "retention", "metric": "accuracy", "n": known}
    results = [Result(method="untrained", seed=0, value=1.0, **flat), Result(method="sft", seed=1, value=0.0, **flat)]
    analysis = analyze(results, unmeasured=unmeasured)
    assert bool(analysis["safety"]) is judged and ("## Safety" in summary(analysis)) is judged


def test_long_answers_are_not_quoted_and_many_lost_ones_are_counted():
    rows = [answer("untrained", "locality", i, 1.0) for i in range(9)]
    rows += [answer("sft", "locality", i, 0.0, "x" * 500, seed=1) for i in range(9)]
    rows += [row for row in asked() if row.task == "correction"]
    (said,) = [s for s in analysed(rows)["before_and_after"]["sft"] if "keeps 0 of the 9" in s]
    assert said.endswith(", 6 more.") and "…" in said and len(said) < 400


def test_summary_and_console_give_units_and_what_was_known(capsys):
    analysis = analysed(asked(), nats("drift", 0.0, 0.12345) + nats("held-out", 2.359, 2.5))
    text = summary(analysis)
    head = next(line for line in text.splitlines() if line.startswith("| arm"))
    assert head == "| arm | correction (n = 12) | locality (n = 8 of 12 known) | held-out, nats | drift, nats |"
    assert "| untrained | 0.0% | knew 8 of 12 | 2.359 | 0.000 |" in text
    assert "| sft | 91.7% | 62.5% | 2.500 | 0.123 |" in text
    assert "In nats per token, less is better: held-out, drift." in text
    assert text.index("corrected 11 of 12") < text.index("## Means")
    show(analysis | {"cut_off": {"sft": 0.25, "untrained": 0.01}})
    printed = capsys.readouterr()
    assert "knew 8 of 12" in printed.out and "0.123" in printed.out and "12.3" not in printed.out
    assert "keeps 5 of the 8 answers" in printed.err and "sft 25.0%" in printed.err


@pytest.mark.parametrize(("shares", "said"), [({"sft": 0.02}, 0), ({"sft": 0.021, "eaft": 0.0}, 1), ({}, 0)])
def test_few_answers_that_are_cut_off_are_not_worth_a_note(shares, said):
    notes = cut_notes(shares)
    assert len(notes) == said and all("sft 2.1%" in note and "eaft" not in note for note in notes)


def test_a_finished_run_has_its_sentences_in_the_analysis(tmp_path):
    rows, cells = asked(), ("untrained", "sft/seed-1")
    for cell, method, value in zip(cells, ("untrained", "sft"), (0.0, 11 / 12)):
        folder = tmp_path / "cells" / cell
        folder.mkdir(parents=True)
        mine = [row for row in rows if row.method == method]
        _lines(folder / "predictions.jsonl", mine)
        moved = Drift(method=method, seed=mine[0].seed, text="t", kind="prose", tokens=9, kl=0.5, nll=2.0, nll_base=1.9)
        _lines(folder / "drift.jsonl", [moved])
        (folder / "results.json").write_text(_result(method, mine[0].seed, value))
    (tmp_path / "cells.jsonl").write_text("".join(f'{{"cell": "{cell}", "vocab_size": 9}}\n' for cell in cells))
    analysis = finish(tmp_path, protocol=None, margin=0.05, tau=None)
    assert "corrected 11 of 12" in (tmp_path / "SUMMARY.md").read_text()
    assert any("keeps 5 of the 8" in sentence for sentence in analysis["before_and_after"]["sft"])


def _result(method, seed, value):
    row = Result(method=method, seed=seed, task="correction", metric="accuracy", value=value, n=12)
    return f"[{row.model_dump_json()}]"


def _lines(path, rows):
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
