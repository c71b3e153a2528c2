import json
import math
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import equipoise
from equipoise import RECOMMENDED_CONFIG, REAFTLoss, train_with_reaft
from equipoise.errors import UserError
from equipoise.objectives.fused_head import fused_linear_loss

CASES = json.loads((Path(__file__).parents[1] / "reference" / "golden_r_eaft.json").read_text(encoding="utf-8"))[
    "cases"
]
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def tensors(case):
    logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
    mask = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    return logits, torch.tensor(case["labels"]), mask


def loss_of(case):
    return REAFTLoss(
        case["shock_threshold"], case["alpha"], case["eps"],
        detach_weights=case["detach_weights"], normalize=case["normalize"],
    )  # fmt: skip


golden = pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['name']}-{'detached' if c['detach_weights'] else 'attached'}-{c['normalize']}"
)


@golden
def test_agrees_with_the_golden_vectors(case):
    logits, labels, mask = tensors(case)
    loss = loss_of(case)(logits, labels, mask)
    loss.backward()
    torch.testing.assert_close(loss.item(), case["loss"], **EXACT)
    torch.testing.assert_close(logits.grad, torch.tensor(case["grad"], dtype=torch.float64), **EXACT)


@golden
def test_diagnostics_agree_with_the_golden_tokens(case):
    logits, labels, mask = tensors(case)
    found = loss_of(case).forward_with_diagnostics(logits, labels, mask)
    counts = found["shocked_mask"] | found["protected_mask"]
    tokens = case.get("valid_tokens") or {"nll": [], "shock": [], "weight": []}
    for name, key in (("token_losses", "nll"), ("shock_ratio", "shock"), ("weights", "weight")):
        expected = torch.tensor(tokens[key], dtype=torch.float64)
        assert found[name].shape == (labels.shape[0], labels.shape[1] - 1)
        torch.testing.assert_close(found[name][counts], expected, **EXACT)
        assert not found[name][~counts].any()
    shocked = sum(s > case["shock_threshold"] for s in tokens["shock"])
    assert (found["n_shocked"], found["n_protected"]) == (shocked, len(tokens["shock"]) - shocked)
    assert found["mean_weight"] == pytest.approx(sum(tokens["weight"]) / max(len(tokens["weight"]), 1))
    torch.testing.assert_close(found["loss"].item(), case["loss"], **EXACT)
    assert found["loss"].requires_grad and not found["weights"].requires_grad


@golden
def test_the_fused_head_agrees_with_the_golden_vectors(case):
    logits, labels, mask = tensors(case)
    targets = labels[:, 1:] if mask is None else labels[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    vocab = logits.shape[-1]
    w = equipoise.weighting("r-eaft", tau=case["shock_threshold"], alpha=case["alpha"], eps=case["eps"])
    identity = torch.eye(vocab, dtype=torch.float64)
    loss = fused_linear_loss(
        logits[:, :-1], identity, targets, w, detach_weights=case["detach_weights"], normalize=case["normalize"]
    ).loss
    loss.backward()
    torch.testing.assert_close(loss.item(), case["loss"], **EXACT)
    torch.testing.assert_close(logits.grad, torch.tensor(case["grad"], dtype=torch.float64), **EXACT)


def test_a_token_worked_by_hand():
    # Two tokens in the vocabulary, p = (0.9, 0.1), label the second: nll = ln 10, H = 0.325083, h = 0.468996,
    # shock = 4.909609 and tau = 4, so w = 1 + 2 * 4.909609 / 4.
    logits = torch.tensor([[[math.log(9), 0.0], [0.0, 0.0]]], dtype=torch.float64)
    found = REAFTLoss(4.0, 2.0, 1e-300).forward_with_diagnostics(logits, torch.tensor([[0, 1]]))
    assert found["shock_ratio"].item() == pytest.approx(4.909609, abs=1e-6)
    assert found["weights"].item() == pytest.approx(3.454805, abs=1e-6)
    assert found["loss"].item() == pytest.approx(3.454805 * math.log(10), abs=1e-5)
    assert (found["n_shocked"], found["n_protected"]) == (1, 0)


def test_poison_and_minus_infinity_and_low_precision():
    logits = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)).half()
    logits[0, 2] = math.nan  # its label is masked
    logits[1, 1, 3] = -math.inf
    labels = torch.tensor([[1, 2, 3, -100, 4], [0, 1, 2, 5, 6]])
    logits.requires_grad_()
    loss = REAFTLoss()(logits, labels)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert logits.grad.isfinite().all() and not logits.grad[0, 2].any() and logits.grad[1, 1, 3] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: REAFTLoss(shock_threshold=0), "tau must be finite and above 0"),
        (lambda: REAFTLoss(alpha=-1), "alpha"),
        (lambda: REAFTLoss(eps=math.nan), "eps"),
        (lambda: REAFTLoss(normalize="mean"), "normalize"),
        (lambda: REAFTLoss()(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long)), "do not fit together"),
        (lambda: REAFTLoss()(torch.zeros(1, 3, 4), torch.zeros(1, 2, dtype=torch.long)), "do not fit together"),
        (lambda: REAFTLoss()(torch.zeros(1, 3, 1), torch.zeros(1, 3, dtype=torch.long)), "one token"),
        (lambda: REAFTLoss()(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 4]])), "label 4 .* outside the vocabulary"),
        (lambda: REAFTLoss()(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]]), torch.ones(1, 2)), "attention_mask"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_recommended_config():
    assert RECOMMENDED_CONFIG == {
        "shock_threshold": 5.0, "alpha": 3.0, "learning_rate": 1e-5, "epochs": 3, "batch_size": 4,
    }  # fmt: skip


class Bigram(torch.nn.Module):
    """The next token from the last one alone, in a model that answers as transformers does."""

    def __init__(self, vocab: int = 8):
        super().__init__()
        self.table = torch.nn.Embedding(vocab, vocab)
        torch.nn.init.zeros_(self.table.weight)

    def forward(self, input_ids, attention_mask=None):
        return types.SimpleNamespace(logits=self.table(input_ids))


def batch(*tokens):
    ids = torch.tensor([tokens])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def test_the_loop_teaches_what_the_batches_say():
    model = Bigram()
    model.eval()
    history = train_with_reaft(
        model, [batch(1, 2, 3), batch(4, 5, 6)], torch.optim.AdamW(model.parameters(), lr=0.3), epochs=20, device="cpu"
    )
    assert [row["epoch"] for row in history] == list(range(1, 21))
    assert history[0]["n_shocked"] + history[0]["n_protected"] == 4 and history[-1]["skipped"] == 0
    assert history[-1]["loss"] < 0.1 * history[0]["loss"] and model.training
    answers = model(torch.tensor([[1, 2, 4, 5]])).logits.argmax(-1)
    assert answers.tolist() == [[2, 3, 5, 6]]


def test_the_loop_skips_what_is_not_finite_and_keeps_the_model():
    model = Bigram()
    with torch.no_grad():
        model.table.weight[7] = math.nan
    before = model.table.weight[:7].clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    history = train_with_reaft(model, [batch(7, 1)], optimizer, epochs=2)
    assert [row["skipped"] for row in history] == [1, 1] and math.isnan(history[0]["loss"])
    assert torch.equal(model.table.weight[:7], before)
    with pytest.raises(UserError, match="5 batches in a row"):
        train_with_reaft(model, [batch(7, 1)] * 5, optimizer, epochs=1)


@pytest.mark.parametrize(
    ("batches", "epochs", "message"),
    [
        ([], 1, "no batch in epoch 1"),
        (iter([batch(1, 2)]), 2, "no batch in epoch 2"),
        ([{"input_ids": torch.tensor([[1, 2]])}], 1, "no 'labels'"),
        ([torch.tensor([[1, 2]])], 1, "no 'labels'"),
        ([batch(1, 2)], 0, "epochs"),
        ([batch(1, 2)], 1.5, "epochs"),
    ],
)
def test_the_loop_names_mistakes(batches, epochs, message):
    model = Bigram()
    with pytest.raises(UserError, match=message):
        train_with_reaft(model, batches, torch.optim.SGD(model.parameters(), lr=0.1), epochs=epochs)


BARE = """
import importlib.abc, importlib.metadata, re, sys
sys.path += {paths!r}

def needs(name, seen):
    seen.add(name)
    for line in importlib.metadata.requires(name) or []:
        other = re.match(r"[\\w.-]+", line)[0].lower().replace("_", "-")
        if other in installed and other not in seen and "extra ==" not in line:
            needs(other, seen)
    return seen

tops = importlib.metadata.packages_distributions()
installed = {{d.lower().replace("_", "-") for ds in tops.values() for d in ds}}
torch_alone = needs("torch", set())
kept = {{top for top, ds in tops.items() if torch_alone & {{d.lower().replace("_", "-") for d in ds}}}}
hidden = set(tops) - kept - {{"equipoise"}}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}} in the bare environment", name=name)

sys.meta_path.insert(0, Absent())
for absent in ("transformers", "pydantic", "trl", "peft", "numpy"):
    assert absent in hidden, absent
from equipoise import REAFTLoss
import torch
logits = torch.zeros(1, 3, 8, requires_grad=True)
REAFTLoss()(logits, torch.tensor([[0, 1, 2]])).backward()
import equipoise
out = equipoise.fused_linear_loss(torch.ones(2, 4), torch.ones(8, 4), torch.tensor([1, 2]), "r-eaft")
print(f"{{logits.grad.abs().sum():.4f}} {{out.loss:.4f}}")
"""


def test_torch_alone_is_enough():
    source = str(Path(equipoise.__file__).parents[1])
    site = str(Path(torch.__file__).parents[1])
    code = BARE.format(paths=[source, site])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # uniform over 8 tokens: h = 1, loss ln 8; the gradient is (1/8, ..., 1/8 - 1) / 2 a token
    assert done.stdout.split() == ["1.7500", "2.0794"]
