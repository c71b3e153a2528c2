"""Drift and likelihood of held-out texts against whole distributions of the models' own logits."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_adapters import tiny_adapted, tiny_stack
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer
from torch.distributions import Categorical, kl_divergence

from equipoise.errors import UserError
from equipoise.evaluation.drift import Reference, drift_interval, measure_retention, summarise_drift
from equipoise.models.loading import Loaded
from equipoise.models.tokens import add_tokens
from equipoise.records import Drift, HeldOutText

TOKENIZER = tiny_tokenizer()
TEXTS = [
    HeldOutText(id="a", kind="prose", text="the call for pandas numpy concat stack, and so on"),
    HeldOutText(id="b", kind="code", text="def f(x):\n    return x\n"),
    HeldOutText(id="c", kind="code", text="import numpy as np\nnp.prod(x)\n" * 2),
    HeldOutText(id="d", kind="prose", prompt="the call?", text="numpy concat", form="chat"),
]


def loaded(model):
    return Loaded(model, TOKENIZER, "tiny")


def ids_of(text):
    if text.prompt is None:
        ids = TOKENIZER(text.text)["input_ids"]
        return ids, 1
    turns = [{"role": "user", "content": text.prompt}, {"role": "assistant", "content": text.text}]
    before = TOKENIZER.apply_chat_template(turns[:1], tokenize=True, add_generation_prompt=True)["input_ids"]
    whole = TOKENIZER.apply_chat_template(turns, tokenize=True)["input_ids"]
    end = len(whole) - whole[::-1].index(2)  # the end of the turn is predicted, the line break after it is not
    return whole[:end], len(before)


@torch.no_grad()
def oracle(base, trained, text, limit=None):
    ids, start = ids_of(text)
    ids = ids[:limit]
    p, q = (
        Categorical(logits=model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].double())
        for model in (base, trained)
    )
    targets, vocab = torch.tensor(ids[start:]), p.logits.shape[1]
    kl = (p.probs * (p.logits - q.logits[:, :vocab])).sum(-1)
    if q.logits.shape == p.logits.shape:
        torch.testing.assert_close(kl, kl_divergence(p, q))
    return len(targets), *(float(part.mean()) for part in (kl, -q.log_prob(targets), -p.log_prob(targets)))


def check(rows, base, trained, **options):
    assert [row.text for row in rows] == [text.id for text in TEXTS]
    for row, text in zip(rows, TEXTS):
        tokens, kl, nll, nll_base = oracle(base, trained, text, **options)
        assert row.tokens == tokens
        assert (row.kl, row.nll, row.nll_base) == pytest.approx((kl, nll, nll_base), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapter_against_its_base(architecture):
    base, trained = tiny_model(architecture), tiny_adapted(architecture)
    rows = Reference(loaded(base), TEXTS, batch_tokens=60).measure(trained, method="sft", seed=3)
    check(rows, base, trained)
    assert all(row.kl > 0 for row in rows)
    assert {(row.method, row.seed) for row in rows} == {("sft", 3)}
    assert measure_retention(loaded(trained), TEXTS, method="sft", seed=3, batch_tokens=60) == rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_untrained_model_has_not_moved_at_all(dtype):
    base = tiny_model(dtype=dtype)
    reference = Reference(loaded(base), TEXTS)
    for model in (base, tiny_adapted(strength=0.0).to(dtype)):
        rows = reference.measure(model, method="untrained", seed=0)
        assert [row.kl for row in rows] == [0.0] * len(TEXTS)
        assert all(row.nll == row.nll_base for row in rows)


def test_the_further_a_model_moves_the_more_it_drifts():
    reference = Reference(loaded(tiny_model()), TEXTS)
    drift = [
        summarise_drift(reference.measure(tiny_adapted(strength=s), method="a", seed=0))[0].value
        for s in (0.0, 0.03, 0.1, 0.3, 1.0)
    ]
    assert drift[0] == 0 < drift[1] and drift == sorted(drift)


def test_runs_of_a_stack_are_measured_one_by_one():
    stack = tiny_stack(3)
    reference = Reference(loaded(tiny_model()), TEXTS)
    found = [reference.measure(stack.model_of(run), method="a", seed=run) for run in range(3)]
    for run, rows in enumerate(found):
        check(rows, tiny_model(), stack.model_of(run))
    assert len({rows[0].kl for rows in found}) == 3


def test_rows_of_new_tokens_and_a_larger_vocabulary():
    base, trained = tiny_model(), tiny_adapted(token_rows=(40, 41, 42))
    check(Reference(loaded(base), TEXTS).measure(trained, method="a", seed=0), base, trained)
    tokenizer, grown = tiny_tokenizer(), copy.deepcopy(base)
    add_tokens(grown, tokenizer, {"all": ("<|sure|>", "<|unsure|>")})
    rows = Reference(loaded(base), TEXTS).measure(grown, method="a", seed=0)
    check(rows, base, grown)
    assert all(row.kl > 0 for row in rows)  # what the new tokens get is missing from the others
    with pytest.raises(UserError, match="vocabulary"):
        Reference(replace(loaded(grown), tokenizer=tokenizer), TEXTS).measure(base, method="a", seed=0)


def test_a_model_trained_in_place_is_compared_with_what_it_was():
    was, model = tiny_model(), tiny_model()
    kept, careless = Reference(loaded(model), TEXTS, copy_head=True), Reference(loaded(model), TEXTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.tensor([TOKENIZER("pandas concat stack")["input_ids"]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    check(kept.measure(model, method="a", seed=0), was, model)
    with pytest.raises(RuntimeError, match="copy_head"):
        careless.measure(model, method="a", seed=0)


def test_long_texts_are_read_up_to_a_length():
    base, trained = tiny_model(), tiny_adapted()
    rows = Reference(loaded(base), TEXTS, max_length=24).measure(trained, method="a", seed=0)
    check(rows, base, trained, limit=24)


def test_dropout_is_no_drift_and_the_mode_stays():
    model = tiny_model(attention_dropout=0.5)
    reference = Reference(loaded(model), TEXTS)
    model.train()
    assert max(row.kl for row in reference.measure(model, method="a", seed=0)) == 0
    assert model.training


def test_what_cannot_be_measured_is_an_error():
    with pytest.raises(UserError, match="no held-out text"):
        Reference(loaded(tiny_model()), [])
    with pytest.raises(UserError, match="'x' can be predicted"):
        Reference(loaded(tiny_model()), [HeldOutText(id="x", kind="prose", text="a")])
    with pytest.raises(UserError, match="no adapter"):
        measure_retention(loaded(tiny_model()), TEXTS, method="a", seed=0)
    broken = tiny_model()
    reference = Reference(loaded(broken), TEXTS)
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[:] = math.nan
    with pytest.raises(UserError):
        reference.measure(broken, method="a", seed=0)


def row(text, kind, tokens, kl, nll, *, method="a", seed=0):
    return Drift(method=method, seed=seed, text=text, kind=kind, tokens=tokens, kl=kl, nll=nll, nll_base=1.0)


def test_a_summary_is_a_mean_over_tokens():
    rows = [row("a", "prose", 10, 0.1, 2.0), row("b", "code", 30, 0.5, 1.0), row("c", "code", 10, 0.1, 3.0)]
    found = {(r.task, r.metric): (round(r.value, 9), r.n, r.higher_is_better) for r in summarise_drift(rows)}
    assert found == {
        ("drift", "forward_kl"): (0.34, 3, False),
        ("held-out", "nll"): (1.6, 3, False),
        ("drift/prose", "forward_kl"): (0.1, 1, False),
        ("held-out/prose", "nll"): (2.0, 1, False),
        ("drift/code", "forward_kl"): (0.4, 2, False),
        ("held-out/code", "nll"): (1.5, 2, False),
    }


def test_an_interval_is_over_texts_and_seeds():
    draw = np.random.default_rng(0)
    rows = [
        row(f"t{i}", "prose", 100, float(x), 1.0, seed=s) for s in (0, 1) for i, x in enumerate(draw.gamma(2, 1, 200))
    ]
    found = drift_interval(rows)
    values = np.array([r.kl for r in rows])
    assert found.estimate == pytest.approx(values.mean())
    assert found.ci is not None
    # one seed alone: the normal interval of a mean over 200 texts
    alone = drift_interval(rows[:200])
    half = 1.96 * values[:200].std(ddof=1) / math.sqrt(200)
    assert alone.ci == pytest.approx((values[:200].mean() - half, values[:200].mean() + half), abs=0.04)
    with pytest.raises(UserError):
        drift_interval(rows[:-1])
    with pytest.raises(UserError):
        drift_interval([])
