"""The passes of a cohort: one forward and backward for the micro-batches of all its runs, then each run's own step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from equipoise import journal
from equipoise.console import say
from equipoise.data.formatting import IGNORE
from equipoise.errors import UserError
from equipoise.models.head import HeadFormula
from equipoise.models.lora_stack import LoraStack
from equipoise.models.packed_attention import Packing, packed
from equipoise.training import checkpoints
from equipoise.training.cohort_member import Member, RunResult
from equipoise.training.durable import json_number
from equipoise.training.head import token_loss
from equipoise.training.interrupts import Interrupted, StopRequest
from equipoise.training.rng import restore_rng, rng_state
from equipoise.training.splitting import is_out_of_memory

# In a pass on a CPU; R = 5 on the testbed, where 15 at once took 9% more processor time and 1 took 15% more.
CACHED_TOKENS = 1200

Validate = Callable[[LoraStack, Sequence[str], int], Mapping[str, Mapping[str, float]]]


class Cohort:
    """Runs in training on one stack; `members[i]` owns row i.

    Args:
        places: where `checkpoint-N/` folders go.
        precision: `fp32` or `bf16`.
        write: called as `write(PEFT model, folder)` for a run that is through.
        on_step: called with a run's name and each row of its `metrics.jsonl`.
        validate: called as `validate(stack, names, step)` when a run has ended an epoch; the numbers by name of the
            runs that did go to their `validation.jsonl`; a run that is left out has nothing to write.
    """

    def __init__(
        self,
        stack: LoraStack,
        members: Sequence[Member],
        places: Path,
        *,
        precision: str,
        write: Callable[[Any, Path], None],
        on_step: Callable[[str, dict[str, Any]], None] | None = None,
        validate: Validate | None = None,
    ):
        self.stack, self.members, self.places = stack, list(members), places
        self.everyone = {member.run.name: member for member in members}
        self.precision, self.write, self.on_step, self.validate = precision, write, on_step, validate
        self.step = 0
        self.results: dict[str, RunResult] = {}
        self.at_once = _runs_at_once(self.members, stack.rows.device)
        self.formula = HeadFormula.of(stack.base)
        self._hand_over()

    def train(self, stop: StopRequest) -> list[RunResult]:
        """Train until every run has left; a folder with a valid checkpoint is gone on with.

        Raises:
            Interrupted: a signal asked for it; the step was finished and all is saved.
            UserError: memory does not even suffice for one run at a time.
        """
        self._resume()
        self.stack.model.train()
        while self.members:
            started = time.perf_counter()
            self.step += 1
            self._pass_all()
            due = any(member.saves_at(self.step) for member in self.members)
            ended = self._update_all()
            self._validate_all()
            for member in self.members:
                member.seconds += (time.perf_counter() - started) / len(self.members)
            self._let_go(ended)
            if due or stop.requested or not self.members:
                self._save()
            if stop.requested:
                raise Interrupted(stop.requested, self.step, self.places.parent)
        return [self.results[name] for name in self.everyone]

    # ---- one step

    def _pass_all(self) -> None:
        while True:
            try:
                self.stack.grads.zero_()
                for member in self.members:
                    member.begin()
                for micro in range(max(len(member.batches(self.step)) for member in self.members)):
                    for first in range(0, len(self.members), self.at_once):
                        self._pass(slice(first, min(first + self.at_once, len(self.members))), micro)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)

    def _halve(self, error: Exception) -> None:
        if self.at_once == 1:
            raise UserError(
                "out of memory even with one run at a time",
                where=f"step {self.step}",
                fix="lower training.batch_size (with more gradient_accumulation) or training.max_length, "
                "or set training.gradient_checkpointing: true",
                docs="docs/troubleshooting.md#out-of-memory",
            ) from error
        self.at_once = (self.at_once + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(f"out of memory at step {self.step}: the runs are now computed {self.at_once} at a time")

    def _pass(self, runs: slice, micro: int) -> None:
        """Forward and backward of one micro-batch of each of these runs."""
        members = self.members[runs]
        drawn = [batches[micro] if micro < len(batches := m.batches(self.step)) else [] for m in members]
        if not any(drawn):
            return
        device = self.stack.rows.device
        ids, labels, packing = _packed_rows(members, drawn, device)
        dropout = Streams(members, self.step, micro, [sum(lengths) for lengths in _lengths(members, drawn)]).mask
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with self.stack.running(runs, dropout=dropout) as base, packed(base, packing), autocast:
            body = base.base_model(input_ids=ids, position_ids=packing.positions, use_cache=False)
            hidden = body.last_hidden_state
            losses = []
            for i, (member, states) in enumerate(zip(members, hidden.unbind())):  # a slice each would add up R^2 zeros
                if not drawn[i]:
                    continue
                objective = member.objective
                items = max(member.items(self.step), 1)
                out = token_loss(base, states, labels[i], self.formula, objective, items)
                share = 1 if objective.normalize == "tokens" else 1 / len(member.batches(self.step))
                losses.append(out["loss"] * share)
                member.add(losses[-1], out)
            torch.autograd.backward(losses)

    def _update_all(self) -> list[int]:
        """Each run's optimizer step; the positions of those that end here."""
        ended = []
        for i, member in enumerate(self.members):
            try:
                row, verdict = member.update(self.step)
            except UserError as error:
                say(f"{member.run.name} leaves the cohort: {error}")
                member.error = error
                ended.append(i)
                continue
            if self.on_step is not None:
                self.on_step(member.run.name, row)
            member.log(row)
            if verdict is not None or self.step == member.steps:
                ended.append(i)
        return ended

    def _validate_all(self) -> None:
        due = [member for member in self.members if self.step % member.steps_per_epoch == 0 and member.error is None]
        if self.validate is None or not due:
            return
        before = rng_state()
        self.stack.model.eval()
        with torch.no_grad():
            found = self.validate(self.stack, [member.run.name for member in self.members], self.step)
        self.stack.model.train()
        restore_rng(before)
        for member in (member for member in due if found.get(member.run.name)):
            row = {name: json_number(value) for name, value in found[member.run.name].items()}
            with journal.Journal(member.folder / "validation.jsonl", key=lambda kept: kept["step"]) as book:
                if not book.rows or book.rows[-1]["step"] < self.step:
                    book.append({"step": self.step, **row})

    def _let_go(self, ended: Sequence[int]) -> None:
        if not ended:
            return
        for i in ended:
            member = self.members[i]
            if member.error is None:
                self.write(self.stack.model_of(i), member.folder / "final")
            self.results[member.run.name] = member.result(self.step)
        kept = [i for i in range(len(self.members)) if i not in ended]
        self.members = [self.members[i] for i in kept]
        self.stack.keep(kept)
        self._hand_over()

    def _hand_over(self) -> None:
        for member, row, grad in zip(self.members, self.stack.rows, self.stack.grads, strict=True):
            member.own(row, grad)

    # ---- checkpoints

    def _save(self) -> None:
        for member in self.everyone.values():
            member.metrics.sync()
        tensors = {f"{m.run.name}:{kind}": t for m in self.members for kind, t in m.tensors().items()}
        state = {
            "members": {member.run.name: member.plain() for member in self.members},
            "left": {name: _plain_result(result) for name, result in self.results.items()},
        }
        with journal.atomic_directory(self.places / f"{checkpoints.PREFIX}{self.step}") as aside:
            save_file({name: t.contiguous() for name, t in tensors.items()}, aside / "runs.safetensors")
            journal.write_json(aside / "state.json", state)
        checkpoints.prune(self.places, max(m.settings.keep_checkpoints for m in self.everyone.values()))

    def _resume(self) -> None:
        found = checkpoints.newest(self.places)
        if found is None:
            return
        self.step = checkpoints.step_of(found)
        say(f"resuming after step {self.step} from {found}")
        state = json.loads((found / "state.json").read_text(encoding="utf-8"))
        kept = [i for i, member in enumerate(self.members) if member.run.name in state["members"]]
        for name, row in state["left"].items():
            self.results[name] = _result(self.everyone[name], row)
        self.members = [self.members[i] for i in kept]
        self.stack.keep(kept)
        self._hand_over()
        tensors = load_file(found / "runs.safetensors")
        for member in self.members:
            start = f"{member.run.name}:"
            mine = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
            member.restore(self.step, mine, state["members"][member.run.name])


def _runs_at_once(members: Sequence[Member], device: torch.device) -> int:
    """How many runs share a pass: on a CPU as many as stay near the cache, elsewhere all; the bits are the same."""
    if device.type != "cpu":
        return len(members)
    tokens = max(sum(len(row.input_ids) for row in m.data.rows) / len(m.data.rows) for m in members)
    return max(1, min(len(members), round(CACHED_TOKENS / (tokens * members[0].settings.batch_size))))


def _lengths(members: Sequence[Member], drawn: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[len(member.data.rows[i].input_ids) for i in batch] for member, batch in zip(members, drawn)]


def _packed_rows(
    members: Sequence[Member], drawn: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, Packing]:
    """Token ids [R, N], a run's examples one after the other, and at each token the label that it is to predict."""
    packing = Packing.of(_lengths(members, drawn), device)
    ids = torch.zeros(packing.positions.shape, dtype=torch.long)
    labels = torch.full_like(ids, IGNORE)
    for r, (member, batch) in enumerate(zip(members, drawn)):
        rows = [member.data.rows[i] for i in batch]
        mine = [token for row in rows for token in row.input_ids]
        ids[r, : len(mine)] = torch.tensor(mine, dtype=torch.long)
        labels[r, : len(mine)] = torch.tensor([t for row in rows for t in (*row.labels[1:], IGNORE)], dtype=torch.long)
    return ids.to(device), labels.to(device), packing


class Streams:
    """The dropout of each run in one pass: drawn from a generator of its own, for the tokens that it has.

    So it does not hang on which other runs are there, nor on how wide they make the pass.
    """

    def __init__(self, members: Sequence[Member], step: int, micro: int, tokens: Sequence[int]):
        self.rates = [m.settings.lora.dropout if m.settings.lora else 0.0 for m in members]
        self.seeds = [member.dropout_seed(step, micro) for member in members]
        self.tokens = tokens

    def mask(self, layer: int, x: Tensor) -> Tensor | None:
        """What to multiply `x [R, N, in]` by in this layer: 0 or 1 / (1 - rate)."""
        if not any(self.rates):
            return None
        out = torch.ones_like(x)
        for i, rate in enumerate(self.rates):
            if rate:
                stream = torch.Generator(x.device).manual_seed(self.seeds[i] + layer)
                out[i, : self.tokens[i]].bernoulli_(1 - rate, generator=stream).div_(1 - rate)
        return out


def _plain_result(result: RunResult) -> dict[str, Any]:
    error = result.error
    return {
        "steps": result.steps,
        "anomalies": result.anomalies,
        "seconds": result.seconds,
        "stopped": None if result.stopped is None else vars(result.stopped),
        "error": None if error is None else vars(error),
    }


def _result(member: Member, row: Mapping[str, Any]) -> RunResult:
    from equipoise.schedules.stopping import Verdict

    out = member.result(row["steps"])
    out.anomalies, out.seconds = row["anomalies"], row["seconds"]
    out.stopped = None if row["stopped"] is None else Verdict(**row["stopped"])
    out.error = None if row["error"] is None else UserError(**row["error"])
    return out
