"""A cohort: each run ends as if it had been alone, as an ordinary adapter, and answers as that does."""

import pytest
import torch
from cohort_runs import OBJECTIVES, initial, loaded, parameters, runs_of
from peft import PeftModel
from tiny_models import tiny_examples, tiny_model

from equipoise.evaluation.knowledge import Item, Task, evaluate, evaluate_stack
from equipoise.evaluation.settings import ScoringSettings
from equipoise.journal import read_journal
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import stack_of
from equipoise.models.quiet import quiet
from equipoise.models.stack_generation import generate_stacked
from equipoise.training.cohort import train_cohort
from equipoise.training.sft import train

CONFIGURATIONS = [(dropout, accumulation) for dropout in (0.0, 0.2) for accumulation in (1, 3)]


def apart(one, two, run, architecture="llama"):
    """How far two results of a run lie from each other, as a share of what training changed."""
    return (parameters(one) - parameters(two)).norm() / (parameters(two) - initial(run, architecture)).norm()


# ---- each as if alone


@pytest.mark.parametrize(("dropout", "accumulation"), CONFIGURATIONS)
def test_padded_alike_a_run_among_15_has_the_bits_of_the_run_alone(tmp_path, dropout, accumulation):
    """Five objectives by dropout by accumulation: 20 configurations, bit-identical in float32 on a CPU."""
    runs = runs_of(dropout=dropout, gradient_accumulation=accumulation)
    together = train_cohort(loaded(), runs, folder=tmp_path / "all")
    assert len(together) == 15
    for at in range(0, 15, 3):
        chosen = at + (at // 3) % 3  # another seed, rate and schedule for each objective
        (alone,) = train_cohort(loaded(), [runs[chosen]], folder=tmp_path / "alone" / str(at))
        assert torch.equal(parameters(together[chosen].final), parameters(alone.final))
        among, by_itself = (read_journal(out.metrics_path).rows for out in (together[chosen], alone))
        assert [{**row, "seconds": 0} for row in among] == [{**row, "seconds": 0} for row in by_itself]


@pytest.mark.parametrize(("dropout", "accumulation"), CONFIGURATIONS)
def test_padded_wider_by_its_company_a_run_differs_by_rounding_alone(tmp_path, dropout, accumulation):
    runs = runs_of(tiny_examples(11), dropout=dropout, gradient_accumulation=accumulation)
    together = train_cohort(loaded(), runs, folder=tmp_path / "all")
    for at in range(0, 15, 4):
        (alone,) = train_cohort(loaded(), [runs[at]], folder=tmp_path / "alone" / str(at))
        assert apart(together[at].final, alone.final, runs[at]) <= 1e-5


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi"])
def test_a_cohort_agrees_with_the_single_trainer(tmp_path, architecture, accumulation):
    """An oracle that shares neither loop nor optimizer step: TRL's trainer, and PEFT's own layers."""
    objectives = (*OBJECTIVES, "recent")
    runs = runs_of(tiny_examples(11), objectives=objectives, gradient_accumulation=accumulation)
    runs = runs[:: 4 if architecture == "llama" else 8]
    together = train_cohort(loaded(architecture), runs, folder=tmp_path / "all")
    for one, out in zip(runs, together):
        given = {"objective": one.objective, "settings": one.settings, "seed": one.seed}
        alone = train(loaded(architecture), one.examples, folder=tmp_path / "alone" / one.name, **given)
        assert apart(out.final, alone.final, one, architecture) <= 1e-5
        theirs, ours = (read_journal(result.metrics_path).rows for result in (alone, out))
        assert [list(row) for row in theirs] == [list(row) for row in ours]
        for a, b in zip(theirs, ours):
            assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, rel=1e-3, abs=1e-6)
    assert sorted(p.name for p in alone.final.iterdir()) == sorted(p.name for p in out.final.iterdir())


# ---- what becomes of the adapters


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi", "gpt2"])
def test_an_exported_run_gives_the_same_logits_under_peft(tmp_path, architecture):
    plain = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if architecture == "gpt2" else {}
    base = loaded(architecture, **plain)
    runs = runs_of(tiny_examples(7), learning_rate=1e-2, epochs=2)[::5]
    seen = []

    def look(stack, names, step):
        ids = torch.arange(5, 15).repeat(len(stack), 1)
        with stack.running() as model:
            seen.append(model(input_ids=ids).logits)
        return {name: {} for name in names}

    out = train_cohort(base, runs, folder=tmp_path, validate=look)
    for i, result in enumerate(out):
        with quiet():
            alone = PeftModel.from_pretrained(tiny_model(architecture, **plain), result.final).eval()
        theirs = alone(input_ids=torch.arange(5, 15)[None]).logits[0]
        torch.testing.assert_close(theirs, seen[-1][i], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(theirs, seen[-1][i - 1], rtol=1e-4, atol=1e-5)


def test_answers_of_all_runs_in_shared_batches_are_those_of_each_run(tmp_path):
    base = loaded()
    runs = runs_of(tiny_examples(11), learning_rate=3e-2, epochs=6)[:5]
    prompts = [base.tokenizer(f"the call for {i}" + " numpy" * (i % 4)).input_ids for i in range(13)]
    out = train_cohort(base, runs, folder=tmp_path)
    with stack_of(base, [result.final for result in out]) as stack:
        for bound in (8192, 100):  # one batch, and one prompt at a time
            together = generate_stacked(stack, base.tokenizer, prompts, max_new_tokens=20, batch_tokens=bound)
            for i, mine in enumerate(together):
                alone = generate(stack.model_of(i), base.tokenizer, prompts, max_new_tokens=20)
                assert [(a.ids, a.stop) for a in mine] == [(a.ids, a.stop) for a in alone]
                assert [a.logprob for a in mine] == pytest.approx([a.logprob for a in alone], abs=1e-3)
    assert len({tuple(tuple(a.ids) for a in mine) for mine in together}) > 1
    assert len({len(a.ids) for mine in together for a in mine}) > 2


def test_scores_of_all_runs_are_those_of_each_run(tmp_path):
    base, how = loaded(), ScoringSettings(answers="bare")
    examples = tiny_examples(11)
    runs = runs_of(examples, learning_rate=3e-2, epochs=6, objectives=("sft", "focal"))
    out = train_cohort(base, runs, folder=tmp_path)
    items = tuple(Item(e.id, tuple(e.messages[:1]), e.messages[1].content) for e in examples)
    asked = [Task("correction", items[:6]), Task("retention", ()), Task("locality", items[6:])]
    with stack_of(base, [result.final for result in out]) as stack:
        names = [(run.name, run.seed) for run in runs]
        together = evaluate_stack(stack, base, asked, runs=names, how=how.model_copy(update={"batch_tokens": 300}))
        for i, run in enumerate(runs):
            alone = Loaded(stack.model_of(i), base.tokenizer, "tiny")
            assert together[i] == evaluate(alone, asked, method=run.name, seed=run.seed, how=how)
    assert len({tuple(row.output for row in mine) for mine in together}) > 1
