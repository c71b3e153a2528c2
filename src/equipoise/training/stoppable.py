"""What a trainer does about its stopping rule: tells it of each step, stops, restarts, and goes on after a break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object

from equipoise.console import say
from equipoise.schedules.stopping import Verdict
from equipoise.training.restarts import Reshuffled, restart_schedule
from equipoise.training.stopping import StoppingCallback, summary


class Stoppable:
    """Goes before a transformers Trainer with `hooks`; without a `StoppingCallback` it changes nothing."""

    hooks: Any
    _sampler: Reshuffled

    @property
    def stopper(self: Any) -> StoppingCallback | None:
        """The stopping rule, if there is one; looked up each time, because a resume makes it anew."""
        return next((c for c in self.callback_handler.callbacks if isinstance(c, StoppingCallback)), None)

    @property
    def stopped_early(self: Any) -> bool:
        """Whether the rule has ended the run."""
        return self.stopper is not None and self.stopper.rule.verdict is not None

    def _run_epoch(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.stopped_early:
            self.control.should_training_stop = True  # resumed from the checkpoint at which it stopped
        else:
            super()._run_epoch(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def _watch(self: Any, row: dict[str, Any], batches: Sequence[Mapping[str, Any]]) -> None:
        """Tell the rule of a step: its row of `metrics.jsonl`, and its batches with their `row_index`."""
        stopper = self.stopper
        if stopper is None:
            return
        rows = {int(i) for batch in batches for i in batch["row_index"].tolist()}
        if self.accelerator.num_processes > 1:
            rows = set(gather_object(sorted(rows)))
        step = row["step"]
        broken = self.hooks.anomalies.steps[-1:] == [step]
        self._obey(stopper.observe(step, row, broken, {i: self.hooks.supervised[i] for i in sorted(rows)}))

    def _compare(self: Any, step: int, losses: Sequence[float] | None) -> None:
        """Tell the rule of a validation; the main process has its losses."""
        if self.stopper is None or self.stopped_early:
            return
        if self.accelerator.num_processes > 1:
            losses = broadcast_object_list([losses])[0]
        self._obey(self.stopper.rule.validate(step, losses or ()))

    def _obey(self: Any, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if self.is_world_process_zero():
            append_once(self.hooks.stops, summary(verdict))
            say(f"{verdict.action} after step {verdict.step}, {verdict.reason}: {verdict.sentence}")
        if verdict.action == "restart":
            self._restart()
        else:
            self.control.should_save = self.control.should_training_stop = True

    def _restart(self: Any) -> None:
        self.stopper.cuts.append([self._sampler.epoch, self._sampler.drawn])
        self._schedule_again(now=True)

    def _schedule_again(self: Any, *, now: bool) -> None:
        if self.stopper is not None and self.stopper.rule.restarted:
            first = self.stopper.rule.restarted[-1]
            restart_schedule(self.lr_scheduler, self.args, first, self.state.max_steps, now=now)

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        if self.stopper is None or self.stopper.rule.settings.restarts == 0:
            return super()._get_train_sampler(train_dataset)  # pyright: ignore[reportAttributeAccessIssue]
        self._sampler = Reshuffled(len(self.train_dataset), self.args.seed, lambda: self.stopper.cuts)
        return self._sampler

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # pyright: ignore[reportAttributeAccessIssue]
        self._schedule_again(now=False)


def append_once(journal: Any, row: dict[str, Any]) -> None:
    """Append unless this step is there: a resumed run repeats the steps after its checkpoint bit by bit."""
    last = journal.rows[-1]["step"] if journal.rows else 0
    if row["step"] > last:
        journal.append(row)
