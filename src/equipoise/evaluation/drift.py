"""What else moved: how far a trained model's predictions on held-out texts have left those of the untrained one.

Neither the divergence nor the likelihood of a text has a floor that a weak model sits at, and neither needs an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from equipoise.errors import UserError
from equipoise.evaluation.held_out import render_text
from equipoise.metrics.resampling import Bootstrap, bootstrap_interval
from equipoise.models.head import HeadFormula, gathered, output_head, verify
from equipoise.models.loading import Loaded
from equipoise.models.states import row_batches, supervised_states
from equipoise.models.tables import tables
from equipoise.records import Drift, HeldOutText, Result
from equipoise.signals.divergence import Divergence, forward_kl
from equipoise.signals.logits import Head

BATCH_TOKENS = 4096
MAX_LENGTH = 1024
MEASURES = (("drift", "forward_kl", "kl"), ("held-out", "nll", "nll"))


class Reference:
    """The untrained model on held-out texts, to compare any number of trained ones with.

    Its hidden states [N, D] are kept on the CPU, in its own precision (7 MB for the shipped texts at D = 576), and its
    head; distributions [N, V] never are. So it must be made before anything is trained, and the model may be trained
    in place afterwards.

    Args:
        loaded: the untrained model; an adapter that it brings belongs to it.
        max_length: of a longer text the first so many tokens are read.
        batch_tokens: positions, padding included, that go through a model at once.
        copy_head: copy the head. Needed where all weights of this very model are then trained; an adapter, or training
            a copy, leaves the head as it is.

    Raises:
        UserError: there is no text, a text cannot be read, or the model's logits are not one linear map of the hidden
            state.
    """

    def __init__(
        self,
        loaded: Loaded,
        texts: Sequence[HeldOutText],
        *,
        max_length: int = MAX_LENGTH,
        batch_tokens: int = BATCH_TOKENS,
        copy_head: bool = False,
    ):
        if not texts:
            raise UserError("there is no held-out text", where="evaluation.held_out", fix="give a file of texts")
        model = _unwrapped(loaded.model)
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length
        rows = [render_text(loaded.tokenizer, text, max_length=min(max_length, positions)) for text in texts]
        known = len(tables(model)[0])
        for text, row in zip(texts, rows):
            if max(row.input_ids) >= known:
                raise UserError(
                    f"held-out text {text.id} has token id {max(row.input_ids)}, but the model knows {known} tokens",
                    fix="use the tokenizer that belongs to this model",
                )
        self.texts = list(texts)
        self._batches = [(batch, [rows[i] for i in batch]) for batch in row_batches(rows, batch_tokens)]
        with _evaluating(loaded.model):
            self._head = _head(model)
            self._states = [supervised_states(model, some).hidden.cpu() for _, some in self._batches]
        if copy_head:
            self._head = replace(self._head, weight=self._head.weight.clone())
        self._version = self._head.weight._version

    @property
    def tokens(self) -> int:
        """Tokens that are predicted, of all texts."""
        return sum(len(states) for states in self._states)

    def measure(
        self, model: Any, *, method: str, seed: int, on_batch: Callable[[int], None] | None = None
    ) -> list[Drift]:
        """Drift and likelihood of `model` on each text, in their order.

        Args:
            model: the trained model, with or without PEFT's wrapper, or `LoraStack.model_of(run)`.
            on_batch: told after each batch how many tokens of texts it had.

        Raises:
            UserError: the model's predictions are not finite, or its vocabulary is smaller than the untrained one's.
        """
        if self._head.weight._version != self._version:
            raise RuntimeError("the untrained model's head was trained since: make the Reference with copy_head=True")
        found: dict[int, Drift] = {}
        with _evaluating(model):
            inner = _unwrapped(model)
            head = _head(inner)
            for (batch, rows), before in zip(self._batches, self._states):
                after = supervised_states(inner, rows)
                read = _compare(before, self._head, after.hidden, head, after.labels)
                columns = zip(*(column.double().cpu().split(after.counts) for column in read))
                found |= {i: self._row(i, Divergence(*row), method, seed) for i, row in zip(batch, columns)}
                if on_batch is not None:
                    on_batch(sum(after.counts))
        return [found[i] for i in range(len(self.texts))]

    def _row(self, i: int, read: Divergence, method: str, seed: int) -> Drift:
        text = self.texts[i]
        kl, nll_base, nll = (float(column.mean()) for column in read)
        if not np.isfinite([kl, nll_base, nll]).all():
            raise UserError(
                f"{method} with seed {seed} gives the held-out text {text.id} predictions that are not finite numbers",
                where="model.dtype",
                fix="use fp32 or bf16, or check the weights",
            )
        return Drift(
            method=method,
            seed=seed,
            text=text.id,
            kind=text.kind,
            tokens=len(read.kl),
            kl=kl,
            nll=max(nll, 0.0),  # -0.0 and rounding of a sure token
            nll_base=max(nll_base, 0.0),
        )


def measure_retention(
    trained: Loaded,
    texts: Sequence[HeldOutText],
    *,
    method: str,
    seed: int,
    base: Loaded | None = None,
    max_length: int = MAX_LENGTH,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Drift]:
    """Compare one trained model with the untrained one; for several, make a `Reference` once.

    Args:
        base: the untrained model; where None, the trained one with its adapter switched off.

    Raises:
        UserError: as `Reference`, or there is no base and no adapter.
    """
    options: dict[str, Any] = {"max_length": max_length, "batch_tokens": batch_tokens}
    if base is not None:
        return Reference(base, texts, **options).measure(trained.model, method=method, seed=seed)
    if not hasattr(trained.model, "disable_adapter"):
        raise UserError(
            f"{trained.name} has no adapter to switch off, so it is not known what it was trained from",
            fix="give the untrained model as `base`",
        )
    with trained.model.disable_adapter():
        reference = Reference(trained, texts, **options)
    return reference.measure(trained.model, method=method, seed=seed)


def summarise_drift(rows: Iterable[Drift]) -> list[Result]:
    """Reduce rows to drift and nll of each method and seed: means over tokens, of all texts and of each kind.

    `n` counts texts. Tasks are `drift` and `held-out`, and `drift/code`, `held-out/prose` and so on where there are
    several kinds.
    """
    groups: dict[tuple[str, int], list[Drift]] = defaultdict(list)
    for row in rows:
        groups[row.method, row.seed].append(row)
    return [result for key, mine in groups.items() for result in _results(*key, mine)]


def _results(method: str, seed: int, rows: Sequence[Drift]) -> Iterator[Result]:
    kinds = list(dict.fromkeys(row.kind for row in rows))
    for kind in [None, *(kinds if len(kinds) > 1 else ())]:
        some = [row for row in rows if kind in (None, row.kind)]
        for task, metric, field in MEASURES:
            yield Result(
                method=method,
                seed=seed,
                task=task if kind is None else f"{task}/{kind}",
                metric=metric,
                value=_ratio(_sums(some, field)),
                n=len(some),
                higher_is_better=False,
            )


def drift_interval(
    rows: Sequence[Drift],
    field: Literal["kl", "nll", "nll_base"] = "kl",
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
) -> Bootstrap:
    """Mean over tokens of one method, with an interval over texts, and over seeds where there are several.

    Raises:
        UserError: there are no rows, or its seeds were measured on different texts.
    """
    seeds: dict[int, dict[str, Drift]] = defaultdict(dict)
    for row in rows:
        seeds[row.seed][row.text] = row
    if len({row.method for row in rows}) != 1 or len({frozenset(mine) for mine in seeds.values()}) != 1:
        raise UserError(
            "an interval of a drift is that of one method, all of whose seeds were measured on the same texts"
        )
    texts = list(next(iter(seeds.values())))
    values = np.stack([_sums([mine[text] for text in texts], field) for mine in seeds.values()])
    return bootstrap_interval(values, _ratio, confidence=confidence, resamples=resamples)


def _sums(rows: Sequence[Drift], field: str) -> np.ndarray[Any, Any]:
    """[texts, 2]: the sum over the tokens of each text, and how many they are."""
    return np.array([(row.tokens * getattr(row, field), row.tokens) for row in rows], dtype=np.float64)


def _ratio(sums: np.ndarray[Any, Any]) -> float:
    return float(sums[..., 0].sum() / sums[..., 1].sum())


def _compare(before: torch.Tensor, base: Head, after: torch.Tensor, head: Head, labels: torch.Tensor) -> Divergence:
    device = head.weight.device
    with gathered(base.weight, base.bias), gathered(head.weight, head.bias):
        return forward_kl(before.to(device), _on(base, device), after.to(device), head, labels.to(device))


def _head(model: Any) -> Head:
    formula = HeadFormula.of(model)
    verify(model, formula, model.forward)
    weight, bias, trained = output_head(model)
    ids, rows = (None, None) if trained is None else (trained.ids, trained.rows.detach().clone())
    bias = None if bias is None else bias.detach()
    return Head(weight.detach(), bias, formula.logit_scale, formula.softcap, ids, rows)


def _on(head: Head, device: torch.device) -> Head:
    moved = {name: getattr(head, name) for name in ("weight", "bias", "row_ids", "rows")}
    return replace(head, **{name: None if t is None else t.to(device) for name, t in moved.items()})


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class _evaluating:
    """Evaluation mode for as long as it is open: dropout would count as drift."""

    def __init__(self, model: Any):
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)
