"""Held-out questions that training data must not have: the same ones, and near duplicates of them."""

from equipoise.data.cleaning import CleanRow, held_out_questions
from equipoise.data.gathering import Gathered, open_rows
from equipoise.data.schemas import COLUMNS
from equipoise.pipelines.cleaning_settings import CleaningSettings
from equipoise.pipelines.cleaning_stage import Stage

FIELDS = (*COLUMNS, "question", "context")


class HeldOut:
    """The questions of the held-out sets, each with the place where it stands.

    Raises:
        UserError: a set cannot be read, or has too many rows that ask nothing.
    """

    def __init__(self, settings: CleaningSettings):
        self.exact: dict[tuple[str, ...], str] = {}
        self.unreadable: dict[str, int] = {}
        for name in settings.against:
            rows = open_rows(name, FIELDS)
            gathered = Gathered(rows, lambda values, line: (held_out_questions(values), []))
            gathered.check(settings.max_bad_share)
            self.unreadable[name] = len(gathered.dropped)
            for line, asked in gathered.kept:
                for question in asked:
                    self.exact.setdefault(question, rows.where(line))
        self.places = list(self.exact.values())

    def __len__(self) -> int:
        return len(self.places)

    def add_to(self, stage: Stage) -> None:
        """Put the questions before those of a stage's rows, if it compares them."""
        if stage.questions is not None:
            for question in self.exact:
                stage.questions.add("\n".join(question))

    def place(self, row: CleanRow) -> str | None:
        """Where a question of the row stands in a held-out set, or None."""
        return next((self.exact[question] for question in row.asked if question in self.exact), None)
