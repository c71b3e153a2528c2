"""What a model thinks of every supervised token of some examples: nll, normalized entropy, shock and its own choice."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch

from equipoise.data.formatting import IGNORE, Rendered, Unusable, render
from equipoise.models.head import HeadFormula, gathered, output_head, verify
from equipoise.models.loading import Loaded
from equipoise.models.states import row_batches, supervised_states
from equipoise.records import Example
from equipoise.signals.tokens import TokenStatistics, normalized_entropy, shock_ratio, token_statistics

BATCH_TOKENS = 4096
WINDOW = 1024  # rows that are sorted by length among themselves; more would only be more to remember


class TokenReader:
    """Reads rows under a model without gradient, projecting supervised positions only.

    Args:
        batch_tokens: positions, padding included, that go through the model at once; a longer row goes alone.
        tail: read the tail probability too.

    Raises:
        UserError: the model's logits are not one linear map of the hidden state.
    """

    def __init__(self, loaded: Loaded, *, batch_tokens: int = BATCH_TOKENS, tail: bool = False):
        model = loaded.model.eval()
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.batch_tokens, self.tail = batch_tokens, tail
        self.formula = HeadFormula.of(self.model)
        verify(self.model, self.formula, self.model.forward)

    @property
    def vocab(self) -> int:
        """Rows of the head."""
        return len(output_head(self.model).weight)

    def read(
        self, rows: Iterable[Rendered], *, on_batch: Callable[[int], None] | None = None
    ) -> Iterator[TokenStatistics]:
        """Yield the statistics [n] of the n supervised tokens of each row, on the CPU, in the order of the rows.

        Args:
            on_batch: told after each batch how many tokens it had, prompts included.
        """
        for window in _windows(rows):
            found: dict[int, TokenStatistics] = {}
            for batch in row_batches(window, self.batch_tokens):
                found |= zip(batch, self._statistics([window[i] for i in batch]))
                if on_batch is not None:
                    on_batch(sum(len(window[i].input_ids) for i in batch))
            yield from (found[i] for i in range(len(window)))

    def _statistics(self, batch: Sequence[Rendered]) -> list[TokenStatistics]:
        hidden, labels, counts = supervised_states(self.model, batch)
        weight, bias, trained = output_head(self.model)
        states = hidden.to(weight.device)
        with gathered(weight, bias):
            read = token_statistics(
                states.to(weight.dtype),
                weight,
                labels.to(weight.device),
                bias=bias,
                logit_scale=self.formula.logit_scale,
                softcap=self.formula.softcap,
                row_ids=None if trained is None else trained.ids,
                rows=None if trained is None else trained.rows,
                tail=self.tail,
            )
        known = {name: column for name, column in read._asdict().items() if column is not None}
        columns = [column.cpu().split(counts) for column in known.values()]
        return [TokenStatistics(**dict(zip(known, row))) for row in zip(*columns)]


def token_rows(
    loaded: Loaded,
    examples: Iterable[Example],
    *,
    max_length: int = 1024,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one row a supervised token, in the order of examples and positions.

    nll and entropy are in nats, h in [0, 1] over the whole vocabulary, tail is a probability. `is_conflict` marks the
    first token at which the answer leaves the model's greedy one: until there both agree, so the choice under teacher
    forcing is the greedy choice. `knowledge` is the class that the example's meta names, if it does. Examples that
    training would leave out, such as those longer than `max_length`, have no rows.

    Args:
        on_batch: told after each batch how many tokens it had, prompts included.

    Raises:
        UserError: as `TokenReader`.
    """
    kept: list[tuple[Example, Rendered]] = []
    for example in examples:
        with suppress(Unusable):
            kept.append((example, render(loaded.tokenizer, example, max_length=max_length)))
    reader = TokenReader(loaded, tail=True)
    for (example, row), statistics in zip(kept, reader.read((row for _, row in kept), on_batch=on_batch)):
        targets = [label for label in row.labels[1:] if label != IGNORE]
        h = normalized_entropy(statistics.entropy, reader.vocab)
        shock = shock_ratio(statistics.nll, h)
        disagrees = (statistics.argmax != torch.tensor(targets)).tolist()
        tail = statistics.tail
        assert tail is not None  # the reader was asked for it
        first = disagrees.index(True) if True in disagrees else None
        for i, target in enumerate(targets):
            yield {
                "item": example.id,
                "knowledge": example.meta.get("knowledge"),
                "position": i,
                "token": loaded.tokenizer.decode([target]),
                "nll": statistics.nll[i].item(),
                "entropy": statistics.entropy[i].item(),
                "h": h[i].item(),
                "shock": shock[i].item(),
                "tail": tail[i].item(),
                "is_conflict": i == first,
            }


def _windows(rows: Iterable[Rendered]) -> Iterator[list[Rendered]]:
    window: list[Rendered] = []
    for row in rows:
        window.append(row)
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window
