"""Which updates a model contradicts: those whose outdated answer it prefers, and a seeded choice among them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from equipoise.config import Section
from equipoise.errors import UserError
from equipoise.journal import write_json
from equipoise.records import Example


class SelectSettings(Section):
    """Which updates are taken: those whose old answer the untrained model finds more likely by a factor.

    `seed` draws the first `data.limit` among them.
    """

    prefers_old: float = Field(ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


@dataclass(frozen=True)
class Selection:
    """What was chosen of some updates, and from how many.

    Attributes:
        ids: of the chosen rows, in the order of the source.
        margins: log p(new) - log p(old) of every row that was looked at, in nats, by id.
        preferred: rows whose old answer is the likelier by more than the factor.
    """

    prefers_old: float
    seed: int
    limit: int | None
    rows: int
    preferred: int
    ids: list[str]
    margins: dict[str, float]

    def of(self, rows: Sequence[Example]) -> list[Example]:
        """The chosen among the rows that were looked at.

        Raises:
            UserError: a chosen row is not there any more.
        """
        known = {row.id: row for row in rows}
        if lost := [name for name in self.ids if name not in known]:
            raise UserError(
                f"{len(lost)} of the {len(self.ids)} updates that this run has chosen are not in its data: {lost[0]}",
                where="data.updates",
                fix="restore the data, or start a run of its own",
            )
        return [known[name] for name in self.ids]

    def note(self) -> str:
        """One line that says how many there were."""
        return (
            f"updates: {len(self.ids)} of the {self.preferred} (among {self.rows}) whose old answer the untrained "
            f"model finds more than {self.prefers_old:g} times as likely"
        )


def select(
    loaded: Any,
    rows: Sequence[Example],
    settings: SelectSettings,
    *,
    limit: int | None = None,
    batch_tokens: int = 4096,
    on_batch: Callable[[int], None] | None = None,
) -> Selection:
    """Find the updates that the model contradicts, in their trained phrasing, and draw `limit` of them.

    Raises:
        UserError: a row has no old answer, or the model prefers none of them.
    """
    from equipoise.evaluation.knowledge import Task, item_of
    from equipoise.evaluation.likelihood import choices, preferences

    if without := [row.id for row in rows if row.old is None]:
        raise UserError(
            f"{len(without)} of {len(rows)} updates have no `old` answer, so nothing can be preferred to the new one: "
            f"{', '.join(without[:3])}",
            where="data.select.prefers_old",
            fix="give these rows an `old`, or remove data.select",
        )
    chosen = choices(loaded.tokenizer, [Task("select", tuple(item_of(row) for row in rows))])
    read = preferences(loaded, chosen, method="untrained", seed=0, batch_tokens=batch_tokens, on_batch=on_batch)
    margins = {row.item: row.margin for row in read}
    return draw(margins, settings, limit)


def draw(margins: dict[str, float], settings: SelectSettings, limit: int | None) -> Selection:
    """Draw among rows by their margins; the seed shuffles them, so that a larger limit adds to a smaller one.

    Raises:
        UserError: none is left.
    """
    preferred = [name for name, margin in margins.items() if -margin > math.log(settings.prefers_old)]
    if not preferred:
        least = min(margins.values(), default=0.0)
        raise UserError(
            f"the model finds none of {len(margins)} old answers more than {settings.prefers_old:g} times as likely as "
            f"the new one (at most {math.exp(min(-least, 700)):.3g} times)",
            where="data.select.prefers_old",
            fix="lower the factor, or remove data.select",
        )
    shuffled = sorted(preferred)
    random.Random(f"select/{settings.seed}").shuffle(shuffled)
    taken = set(shuffled[:limit])
    ids = [name for name in margins if name in taken]
    return Selection(settings.prefers_old, settings.seed, limit, len(margins), len(preferred), ids, margins)


def remember(selection: Selection, file: Path) -> None:
    """Write a selection into a run, so that a resume has the same rows whatever its machine rounds to."""
    write_json(file, asdict(selection))


def remembered(file: Path, settings: SelectSettings, limit: int | None) -> Selection | None:
    """The selection that a run has made, or None where it has not come to that.

    Raises:
        UserError: it was made with other settings.
    """
    if not file.exists():
        return None
    found = Selection(**json.loads(file.read_text(encoding="utf-8")))
    asked = (settings.prefers_old, settings.seed, limit)
    if (found.prefers_old, found.seed, found.limit) != asked:
        raise UserError(
            "this run has chosen its updates with other settings of data.select or data.limit",
            where=str(file),
            fix="go on with the settings that it had, or start a run of its own",
        )
    return found
