"""Rows of a data set on the Hugging Face Hub, named `hub:NAME:SPLIT`; the token never passes here."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pkgutil import iter_modules
from typing import Any

from equipoise.data.jsonl import BadRow, Raw, check_text, shown
from equipoise.errors import UserError

PREFIX = "hub:"
_SOURCE = re.compile(r"hub:(?P<name>[^:]+)(?::(?P<config>[^:\[\]]+))?:(?P<split>[^:\[\]]+(?:\[[^\[\]]*\])?)")


class HubRows:
    """The rows of `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT`; SPLIT may be a slice such as `train[:100]`.

    Only the columns named in `fields` are read; a list of class labels is read as a list of their names. The library
    takes the token from `HF_TOKEN` or the cached login. A line is the row's number, from 1. After iteration `sha256` is
    that of the fields that are read.

    Raises:
        UserError: no such data set, configuration or split, a gated one without access, or no connection.
    """

    def __init__(self, source: str, fields: Sequence[str]):
        match = _SOURCE.fullmatch(source)
        if match is None:
            raise UserError(
                "a data set of the Hub is named hub:NAME:SPLIT", where=source, fix="for example hub:org/name:train"
            )
        self.source, self.name, self.config, self.split = source, match["name"], match["config"], match["split"]
        self.fields = fields
        self.notes: list[str] = []
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the rows read so far, as hexadecimal digits."""
        return self._digest.hexdigest()

    def where(self, line: int, field: str = "") -> str:
        """`source:row:field` for an error."""
        return f"{self.source}:{line}:{field}" if field else f"{self.source}:{line}"

    def __iter__(self) -> Iterator[Raw]:
        self._digest = hashlib.sha256()
        table = self._load()
        names = _label_names(table)
        unread = dict.fromkeys(name for name in table.column_names if name not in self.fields)
        # images and audio in other columns are never decoded
        for number, row in enumerate(table.remove_columns(list(unread)), 1):
            row |= {column: _named(row[column], names[column]) for column in names.keys() & row.keys()}
            text = json.dumps(row, sort_keys=True, default=str)
            self._digest.update(text.encode() + b"\n")
            yield Raw(number, _checked(row, unread), shown(text))

    def _load(self) -> Any:
        from datasets import load_dataset, packaged_modules
        from datasets.exceptions import DatasetNotFoundError, DatasetsError
        from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  its httpx, whichever

        if self.name in {module.name for module in iter_modules(packaged_modules.__path__)}:
            raise self._refused(gated=False)  # a file format to the library: it would read the current folder
        try:
            return load_dataset(self.name, self.config, split=self.split)
        except DatasetNotFoundError as error:
            raise self._refused(gated=" is a gated dataset on the Hub" in str(error)) from None
        except (ValueError, RuntimeError, OSError, HTTPError, DatasetsError) as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> UserError:
        from huggingface_hub.errors import (
            HTTPError,  # pyright: ignore[reportPrivateImportUsage]  its httpx, whichever
            LocalEntryNotFoundError,
        )

        causes = list(_causes(error))
        answers = [getattr(cause, "response", None) for cause in causes]
        status = next((answer.status_code for answer in answers if answer is not None), None)
        if status in (401, 403, 404):
            return self._refused(gated=False)
        if any(
            isinstance(cause, (ConnectionError, TimeoutError, HTTPError, LocalEntryNotFoundError)) for cause in causes
        ):
            answer = f" (HTTP {status})" if status else ""
            return UserError(
                f"the Hub cannot be reached{answer}, and {self.name} is not in the cache",
                where=self.source,
                fix="check the connection (and HF_HUB_OFFLINE) and try again, or give the rows as a JSONL file",
            )
        return UserError(
            f"cannot load the data set: {shown(str(error.__cause__ or error), 300)}",
            where=self.source,
            fix="check name, configuration and split: hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT",
        )

    def _refused(self, *, gated: bool) -> UserError:
        what = f"the data set {self.name} is gated"
        fix = "accept its terms on its page, then set HF_TOKEN or run `hf auth login`"
        if not gated:
            what = f"there is no data set {self.name} on the Hub, or it is private"
            fix = "check the name; for a private one set a valid HF_TOKEN or run `hf auth login`"
        return UserError(what, where=self.source, fix=fix, docs="docs/troubleshooting.md#gated")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _label_names(table: Any) -> dict[str, list[str]]:
    """The names of labels of each column that holds lists of them."""
    within = {column: getattr(feature, "feature", None) for column, feature in table.features.items()}
    named = {column: getattr(label, "names", None) for column, label in within.items()}
    return {column: list(names) for column, names in named.items() if names}


def _named(labels: list[Any] | None, names: Sequence[str]) -> list[Any] | None:
    if labels is None:
        return None
    return [names[label] if isinstance(label, int) and 0 <= label < len(names) else label for label in labels]


def _checked(row: dict[str, Any], unread: dict[str, None]) -> dict[str, Any] | BadRow:
    try:
        check_text(row)
    except BadRow as bad:
        return bad
    return row | unread
