"""When to save a checkpoint, and when to stop because somebody asked."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from equipoise.training.interrupts import StopRequest


class Pace(TrainerCallback):
    """Saves every `every` steps, or after each epoch, and at once when a stop was requested."""

    def __init__(self, every: int | str | None, stop: StopRequest):
        self.every, self.stop = every, stop

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Called by the Trainer after each optimizer step, before it looks at `control`."""
        every = self.every
        if every == "epoch":
            every = max(state.max_steps // max(int(args.num_train_epochs), 1), 1)
        if isinstance(every, int) and (state.global_step % every == 0 or state.global_step == state.max_steps):
            control.should_save = True
        if self.stop.requested is not None:
            control.should_save = control.should_training_stop = True
        return control
