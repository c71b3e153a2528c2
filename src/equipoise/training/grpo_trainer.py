"""TRL's GRPOTrainer with our rollouts, a KL divergence that is always measured, and checkpoints that are whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.grpo_trainer import GRPOTrainer

from equipoise.console import say, warn
from equipoise.journal import write_json
from equipoise.schedules.collapse import CollapseWatch
from equipoise.training.anomalies import Anomalies
from equipoise.training.best import Best
from equipoise.training.durable import Durable, json_number, train_in_float32
from equipoise.training.forward_kl import HeldOut
from equipoise.training.grpo_settings import GrpoSettings
from equipoise.training.rng import restore_rng, rng_state
from equipoise.training.rollouts import Rollouts
from equipoise.training.stoppable import append_once

STATE = "grpo_state.json"
SMOOTHED = 10  # steps of the KL divergence that is compared with its limit


@dataclass
class GrpoHooks:
    """Where a run's events go: journals with `append` and `rows`, and callables."""

    folder: Path
    checkpoints: Path
    metrics: Any
    validations: Any
    anomalies: Anomalies
    keep_checkpoints: int = 2
    validate: Callable[[Any, int], dict[str, float]] | None = None
    keep_best: Mapping[str, Best] = field(default_factory=dict)
    write_model: Callable[[Any, Path], None] | None = None
    on_step: Callable[[dict[str, Any]], None] | None = None


class CurriculumTrainer(Durable, GRPOTrainer):
    """Overrides what order, evidence and durability need; loss, optimizer and schedule are the parents'.

    Each optimizer step draws its own answers, so TRL's buffer of them is empty between steps, where checkpoints are.
    """

    def __init__(
        self, *args: Any, rollouts: Rollouts, settings: GrpoSettings, hooks: GrpoHooks, held_out: HeldOut, **kwargs: Any
    ):
        functions: list[Any] = [given]
        super().__init__(*args, rollout_func=rollouts, reward_funcs=functions, **kwargs)
        model: Any = self.model
        if getattr(model.get_base_model(), "quantization_method", None) is not None:
            train_in_float32(model)
        self.rollouts, self.settings, self.hooks, self.held_out = rollouts, settings, hooks, held_out
        self.watch = CollapseWatch(settings.collapse.rule())
        self.stopped: str | None = None
        self.collapsed = False
        self.recent_kl: list[float] = []
        self.warned: list[str] = []
        self._row: dict[str, Any] | None = None
        self._losses: list[float] = []
        self._kl = 0.0

    # ---- one optimizer step

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses.append(float(loss))
        return loss

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        # shuffling and dropout of a step hang on the seed and the step alone: a resume has nothing to put back
        set_seed((self.args.seed * 1_000_003 + self.state.global_step) % 2**32)
        batch = super()._generate_and_score_completions(inputs)
        self._kl = self._divergence(batch)
        return batch

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        base, training = self.accelerator.unwrap_model(model).get_base_model(), model.training
        hook = base.register_forward_pre_hook(positions_by_mask, with_kwargs=True)
        model.train(training and torch.is_grad_enabled())  # a base's dropout would pass for a divergence
        try:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        finally:
            model.train(training)
            hook.remove()

    def _divergence(self, batch: Mapping[str, Any]) -> float:
        """KL(policy || base) in nats a token, on the answers just drawn, by Schulman's k3 estimator."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        kept, rows = batch["completion_ids"].size(1), self.args.per_device_train_batch_size
        wrapped: Any = self.model
        policy: Any = self.accelerator.unwrap_model(wrapped)
        checkpointing: Any = disable_gradient_checkpointing(wrapped, None)
        with torch.no_grad(), checkpointing:
            own = batch["sampling_per_token_logps"]  # of the model at temperature 1, as the answers were drawn
            if self.temperature != 1.0:  # TRL's are of the distribution that was drawn from
                own = self._get_per_token_logps_and_entropies(self.model, ids, mask, kept, batch_size=rows)[0]
            base = batch.get("ref_per_token_logps")
            if base is None:
                with policy.disable_adapter():
                    base = self._get_per_token_logps_and_entropies(self.model, ids, mask, kept, batch_size=rows)[0]
        return k3(own, base, batch["completion_mask"])

    def _step_means(self) -> dict[str, float]:
        loss, self._losses = math.fsum(self._losses), []
        return {"loss": loss}

    def _step_rows(self) -> list[str]:
        return sorted(set(self.rollouts.drawn_for))

    # ---- what is written

    def _finish_row(self, learning_rate: float | None) -> None:
        assert self._row is not None
        step = self.state.global_step
        entropies = self._metrics["train"].get("entropy", [])[-self.args.gradient_accumulation_steps :]
        entropy = sum(entropies) / max(len(entropies), 1)
        numbers = {**self.rollouts.numbers, "kl": self._kl, "entropy": entropy, **self._row}
        row = {"step": step, "learning_rate": learning_rate, **{k: json_number(v) for k, v in numbers.items()}}
        self._row = None
        if self.args.logging_strategy == "no":
            self._metrics["train"].clear()  # which logging would do
        if self.hooks.on_step is not None:
            self.hooks.on_step(row)
        append_once(self.hooks.metrics, row)
        self._mind_kl(step)
        found = self.validate(step) if self._due(step) else {}
        self._mind_collapse(row, found.get("target/f1"))

    def _due(self, step: int) -> bool:
        """After the last step of each stage, every `eval_every` steps, and at the end."""
        every = self.settings.eval_every
        starts = {first for first, _ in self.rollouts.curriculum.stages()}
        return step in starts or step >= self.state.max_steps or (every is not None and step % every == 0)

    def begin(self) -> None:
        """Measure the untrained model: what the rest is compared with."""
        found = self.validate(0)
        self.watch.add(0, math.nan, target_f1=found.get("target/f1"))

    def validate(self, step: int) -> dict[str, float]:
        """Measure the policy as it is; the random generators are put back. Step 0 is the untrained model."""
        before = rng_state()
        model: Any = self.model
        training = model.training
        model.eval()
        with torch.no_grad():
            found = {} if self.hooks.validate is None else dict(self.hooks.validate(model, step))
            found |= self.held_out.measure(self.accelerator.unwrap_model(model))
        self._keep_best(model, step, found)
        model.train(training)
        restore_rng(before)
        row = {"step": step, **{k: json_number(v) for k, v in found.items()}}
        if step > 0:
            append_once(self.hooks.validations, row)
        elif not self.hooks.validations.rows:
            self.hooks.validations.append(row)
        return found

    def _mind_kl(self, step: int) -> None:
        self.recent_kl = [*self.recent_kl, self._kl][-SMOOTHED:]
        limit, mean = self.settings.kl_limit, sum(self.recent_kl) / len(self.recent_kl)
        if limit is None or mean <= limit:
            return
        if self.settings.kl_action == "stop":
            self._stop(f"the policy moved {mean:.2f} nats a token from the base, more than grpo.kl_limit (step {step})")
        else:
            self._warn(
                f"the policy has moved more than grpo.kl_limit, {limit:g} nats a token, from the base; "
                "raise grpo.beta or lower grpo.learning_rate"
            )

    def _mind_collapse(self, row: Mapping[str, Any], target_f1: float | None) -> None:
        if self.settings.collapse.action == "off" or row["reward"] is None:
            return
        verdict = self.watch.add(
            row["step"], row["reward_target"], target_f1=target_f1, entropy=row["entropy"], non_empty=row["non_empty"]
        )
        if verdict is None:
            return
        if self.settings.collapse.action == "stop":
            self.collapsed = True
            self._stop(verdict.sentence)
        else:
            self._warn(verdict.sentence)

    def _warn(self, text: str) -> None:
        if text not in self.warned:
            self.warned.append(text)
            warn(text)

    def _stop(self, why: str) -> None:
        if self.stopped is None:
            say(f"stopping: {why}")
            self.stopped = why
        self.control.should_training_stop = self.control.should_save = True

    # ---- checkpoints

    def _write_state(self, aside: Path) -> None:
        targets = self.rollouts.items["target"]
        write_json(
            Path(aside) / STATE,
            {
                "curriculum": self.rollouts.curriculum.state_dict(),
                "labels": [[list(pair) for pair in item.label] for item in targets],
                "collapse": self.watch.state_dict(),
                "recent_kl": self.recent_kl,
                "warned": self.warned,
                "stopped": self.stopped,
                "collapsed": self.collapsed,
            },
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = json.loads((Path(resume_from_checkpoint) / STATE).read_text(encoding="utf-8"))
        self.rollouts.curriculum.load_state_dict(state["curriculum"])
        self.rollouts.relabel([[(kind, text) for kind, text in label] for label in state["labels"]])
        self.watch.load_state_dict(state["collapse"])
        self.recent_kl, self.warned = state["recent_kl"], state["warned"]
        self.stopped, self.collapsed = state["stopped"], state["collapsed"]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.stopped is not None:
            self.control.should_training_stop = True  # resumed from the checkpoint at which it stopped
        else:
            super()._run_epoch(*args, **kwargs)


def given(prompts: Sequence[Any], completions: Sequence[Any], reward: Sequence[float], **_: Any) -> list[float]:
    """The reward that the rollouts computed already."""
    return list(reward)


def positions_by_mask(model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A forward pre-hook: TRL pads on the left and gives no positions, which learned ones cannot do without."""
    if "position_ids" in signature(type(model).forward).parameters:
        kwargs = {**kwargs, "position_ids": (kwargs["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    return args, kwargs


def k3(own: torch.Tensor, base: torch.Tensor, mask: torch.Tensor) -> float:
    """Schulman's estimate of KL(own || base) from log-probabilities [B, T] of tokens that `own` drew, a token.

    exp(d) - d - 1 with d = log base - log own has the divergence as its mean, is never negative and varies little.
    """
    gap = (base - own) * mask
    return float(((gap.exp() - gap - 1) * mask).sum() / mask.sum().clamp(min=1))
