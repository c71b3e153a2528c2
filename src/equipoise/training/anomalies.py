"""Steps whose loss or gradient is not finite: skipped, written down, and in numbers a reason to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from equipoise.errors import UserError

FIX = "lower the learning rate, use bf16 or fp32, and look at the rows named in anomalies.jsonl"
DOCS = "docs/troubleshooting.md#nan"
IN_A_ROW = 5
SHARE = 0.01
MINIMUM = 5  # below this many, a share of a short run says nothing


class Diverged(UserError):
    """Training met too many steps whose loss or gradient is not finite; with the same settings it would again."""


@dataclass
class Anomalies:
    """The skipped steps so far. `journal` is anything with `append(row)`, `rows` what it held when training began."""

    journal: Any
    steps: list[int] = field(default_factory=list)

    def restore(self, rows: list[dict[str, Any]], step: int) -> None:
        """Remember skipped steps up to the checkpoint's step; later ones will happen again."""
        self.steps = sorted({row["step"] for row in rows if row["step"] <= step})

    def add(self, step: int, *, loss: float, grad_norm: float, rows: list[str]) -> None:
        """Record a skipped step.

        Raises:
            Diverged: five steps in a row, or more than 1% of the steps (and at least five), were skipped.
        """
        if not any(row["step"] == step for row in self.journal.rows):  # a resumed run meets the same step again
            self.journal.append(
                {"step": step, "rows": rows, "loss": _text(loss), "grad_norm": _text(grad_norm), "action": "skipped"}
            )
        self.steps.append(step)
        run = self.steps[-IN_A_ROW:]
        in_a_row = len(run) == IN_A_ROW and run == list(range(step - IN_A_ROW + 1, step + 1))
        if in_a_row or (len(self.steps) >= MINIMUM and len(self.steps) > SHARE * step):
            kind = f"{IN_A_ROW} steps in a row" if in_a_row else f"{len(self.steps)} of {step} steps"
            raise Diverged(
                f"training stopped at step {step}: the loss or gradient was not a finite number in {kind}",
                where=f"{getattr(self.journal, 'path', 'anomalies.jsonl')}",
                fix=FIX,
                docs=DOCS,
            )


def _text(value: float) -> float | str:
    """JSON has no NaN."""
    return value if math.isfinite(value) else str(value)
