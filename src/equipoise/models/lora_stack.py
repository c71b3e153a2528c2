"""The LoRA adapters of R runs on one frozen base, computed in one pass; on demand each is a PEFT adapter again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equipoise.errors import UserError
from equipoise.models import lora_sum
from equipoise.models.quiet import quiet


@dataclass(frozen=True)
class Slot:
    """One adapted layer, and where a run's row of parameters holds its A [r, in] and B [out, r]."""

    name: str
    module: Any  # PEFT's layer around the base's own
    a: slice
    b: slice
    r: int
    scaling: float

    def factors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Views A [R, r, in] and B [R, out, r] of `rows [R, P]`."""
        a, b = rows[:, self.a], rows[:, self.b]
        return a.view(len(rows), self.r, -1), b.view(len(rows), -1, self.r)


Dropout = Callable[[int, Tensor], Tensor | None]


class LoraStack:
    """R adapters beside the layers of one PEFT model; `rows [R, P]` holds the parameters of a run in each row.

    The model's own adapter is the mould: it says which layers are adapted and how, and what `model_of` gives back
    and what is saved are that very model with a run's parameters in it.

    While `running` is open, the model takes inputs whose first dimension is R x m: the first m rows are the first
    run's, and so on. Low-rank products are batched over the runs, the base's layers see all rows at once.

    Args:
        model: a `PeftModel` with plain LoRA on linear layers, and nothing else that trains.
        rows: [R, P] float32 on the model's device, as `parameters_of` gives them.

    Raises:
        UserError: the model has an adapter of another kind.
    """

    def __init__(self, model: Any, rows: Tensor):
        self.model, self.slots = model, slots(model)
        self.rows, self.grads = rows, torch.zeros_like(rows)
        self.dropout: Dropout | None = None
        self._factors: list[_Factors] = []
        self._anchor = torch.zeros(())

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def base(self) -> Any:
        """The model without PEFT's wrapper; its layers are the adapted ones."""
        return self.model.get_base_model()

    def keep(self, runs: Sequence[int]) -> None:
        """Go on with these runs alone, in this order."""
        self.rows, self.grads = self.rows[list(runs)].clone(), self.grads[list(runs)].clone()

    def some(self, runs: Sequence[int]) -> LoraStack:
        """A stack of copies of these runs' parameters, in this order, on the same model."""
        return LoraStack(self.model, self.rows[list(runs)])

    @contextmanager
    def running(self, runs: slice = slice(None), *, dropout: Dropout | None = None) -> Iterator[Any]:
        """Let the model compute `runs`; yields the base. A backward adds to `grads`.

        Args:
            dropout: gives, for a layer's number and its input [R, n, in], what to multiply the input of A by, or None.
        """
        self._factors = [
            _Factors(*slot.factors(self.rows[runs]), *slot.factors(self.grads[runs]), slot.scaling)
            for slot in self.slots
        ]
        self._anchor = torch.zeros((), device=self.rows.device, requires_grad=torch.is_grad_enabled())
        self.dropout = dropout
        for number, slot in enumerate(self.slots):
            slot.module.forward = partial(self._forward, number)
        try:
            yield self.base
        finally:
            for slot in self.slots:
                del slot.module.forward
            self._factors, self.dropout = [], None

    def _forward(self, number: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        slot, factors = self.slots[number], self._factors[number]
        if x.dim() < 3 or len(x) % len(factors.a):
            raise UserError(
                f"the input of {slot.name} is not laid out by rows, so it cannot be told which run a token is of",
                where="training.lora.target_modules",
                fix="leave this layer out (experts of a mixture mix the rows), or train the runs one by one",
            )
        stacked = x.reshape(len(factors.a), -1, x.shape[-1])
        mask = None if self.dropout is None else self.dropout(number, stacked)
        given = stacked if mask is None else stacked * mask
        base = slot.module.base_layer
        if not args and not kwargs and lora_sum.fits(base, x):
            nothing = x.new_zeros(*x.shape[:-1], base.out_features, dtype=base.weight.dtype)
            return lora_sum.onto(base, x, _AddLowRank.apply(nothing, given, self._anchor, factors))
        return _AddLowRank.apply(base(x, *args, **kwargs), given, self._anchor, factors)

    # ---- one run on its own

    def model_of(self, run: int) -> Any:
        """The PEFT model with this run's parameters, to use or save; they are copied."""
        fill(self.slots, self.rows[run])
        return self.model


@dataclass(frozen=True)
class _Factors:
    """What a layer's product is made of: A [R, r, in], B [R, out, r], and where their gradients are added up."""

    a: Tensor
    b: Tensor
    of_a: Tensor
    of_b: Tensor
    scaling: float


class _AddLowRank(torch.autograd.Function):
    """`out += scaling * (x A^T) B^T`, batched over runs: no tensor of the size of `out` is made on the way.

    Gradients of A and B go straight to their place in the runs' rows; `anchor` has autograd come here for them.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, anchor: Tensor, factors: _Factors) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else factors.a.dtype
        ctx.factors, ctx.dtype = factors, x.dtype
        with torch.autocast(device, enabled=False):
            x, a, b = x.to(dtype), factors.a.to(dtype), factors.b.to(dtype)
            inner = torch.bmm(x, a.transpose(1, 2))
            stacked = out.view(*x.shape[:2], -1)
            if out.dtype == dtype:
                stacked.baddbmm_(inner, b.transpose(1, 2), alpha=factors.scaling)
            else:
                stacked.add_(torch.bmm(inner, b.transpose(1, 2)), alpha=factors.scaling)
        ctx.mark_dirty(out)
        ctx.save_for_backward(x, inner, a, b)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        given, factors = gradients[0], ctx.factors
        x, inner, a, b = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            g = given.reshape(*x.shape[:2], -1).to(x.dtype)
            of_inner = torch.bmm(g, b).mul_(factors.scaling)
            factors.of_b.add_(torch.bmm(g.transpose(1, 2), inner), alpha=factors.scaling)
            factors.of_a.add_(torch.bmm(of_inner.transpose(1, 2), x))
            of_x = torch.bmm(of_inner, a).to(ctx.dtype) if ctx.needs_input_grad[1] else None
        return given, of_x, None, None


def slots(model: Any) -> list[Slot]:
    """The adapted layers of a PEFT model, in its order.

    Raises:
        UserError: an adapter that is no plain LoRA on a linear layer, or something else that trains.
    """
    from peft.tuners.lora import LoraLayer

    found: list[Slot] = []
    at, trained = 0, set()
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        a, b = (getattr(dict(part.items()).get("default"), "weight", None) for part in (module.lora_A, module.lora_B))
        if a is None or b is None or a.dim() != 2 or module.lora_variant or module.lora_bias.get("default"):
            raise _unsupported(f"the adapter of {name} is no plain LoRA on a linear layer")
        trained |= {id(a), id(b)}
        middle, end = at + a.numel(), at + a.numel() + b.numel()
        found.append(Slot(name, module, slice(at, middle), slice(middle, end), len(a), module.scaling["default"]))
        at = end
    others = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in trained]
    if others or not found:
        raise _unsupported(f"{others[0]} trains too" if others else "it has no LoRA layer")
    return found


def _unsupported(detail: str) -> UserError:
    return UserError(
        f"runs cannot share this model: {detail}",
        where="training.lora",
        fix="use plain LoRA on linear layers (`lora: {}`), or train the runs one by one",
    )


def parameters_of(found: Sequence[Slot]) -> Tensor:
    """The model's own adapter as one row [P], a float32 copy."""
    pairs = ((s.module.lora_A["default"].weight, s.module.lora_B["default"].weight) for s in found)
    return torch.cat([p.detach().float().reshape(-1) for p in chain.from_iterable(pairs)])


@torch.no_grad()
def fill(found: Sequence[Slot], row: Tensor) -> None:
    """Copy one run's parameters [P] into the model's own adapter."""
    for slot in found:
        a, b = slot.factors(row[None])
        slot.module.lora_A["default"].weight.copy_(a[0])
        slot.module.lora_B["default"].weight.copy_(b[0])


@contextmanager
def stack_of(loaded: Any, folders: Sequence[Path]) -> Iterator[LoraStack]:
    """A stack of saved adapters of one shape on a loaded base, for as long as the context is open.

    Raises:
        UserError: they are adapters of different shapes.
    """
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    configs = [PeftConfig.from_pretrained(str(folder)) for folder in folders]
    first = configs[0]
    for folder, config in zip(folders, configs):
        if any(_said(config, name) != _said(first, name) for name in ("r", "lora_alpha", "target_modules")):
            raise UserError(
                f"{folder} holds an adapter of another shape than {folders[0]}",
                where=str(folder / "adapter_config.json"),
                fix="stack adapters of one rank, alpha and set of layers",
            )
    with quiet():
        adapted = get_peft_model(loaded.model, first)
    try:
        adapted.eval()
        found, rows = slots(adapted), []
        for folder in folders:
            set_peft_model_state_dict(adapted, load_file(folder / "adapter_model.safetensors"))
            rows.append(parameters_of(found))
        yield LoraStack(adapted, torch.stack(rows))
    finally:
        adapted.unload()


def _said(config: Any, name: str) -> Any:
    value = getattr(config, name)
    return sorted(value) if isinstance(value, set | list) else value
