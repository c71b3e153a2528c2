"""What a model thinks of every supervised token of some examples: nll, normalized entropy, shock and its own choice."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from equipoise.data.formatting import IGNORE, render
from equipoise.models.loading import Loaded
from equipoise.records import Example
from equipoise.signals.tokens import shock_ratio


@torch.no_grad()
def token_rows(loaded: Loaded, examples: Iterable[Example], *, max_length: int = 1024) -> Iterator[dict[str, Any]]:
    """Yield one row a supervised token, in the order of examples and positions.

    nll is in nats, h in [0, 1] over the whole vocabulary. `is_conflict` marks the first token at which the answer
    leaves the model's greedy one: until there both agree, so the choice under teacher forcing is the greedy choice.
    `knowledge` is the class that the example's meta names, if it does.
    """
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    for example in examples:
        rendered = render(tokenizer, example, max_length=max_length)
        labels = torch.tensor(rendered.labels)[1:]
        where = (labels != IGNORE).nonzero().flatten()
        targets = labels[where]
        ids = torch.tensor([rendered.input_ids], device=model.device)
        # The model's own logits, so that a scale or a cap of its head is in them; one short example at a time.
        logp = model(input_ids=ids).logits[0, where.to(model.device)].float().log_softmax(-1).cpu()
        nll = -logp.gather(1, targets[:, None]).squeeze(1)
        entropy = torch.special.entr(logp.exp()).sum(-1)
        h = entropy / math.log(logp.shape[1])
        shock = shock_ratio(nll, h)
        disagrees = (logp.argmax(-1) != targets).tolist()
        first = disagrees.index(True) if True in disagrees else None
        for i, target in enumerate(targets.tolist()):
            yield {
                "item": example.id,
                "knowledge": example.meta.get("knowledge"),
                "position": i,
                "token": tokenizer.decode([target]),
                "nll": nll[i].item(),
                "h": h[i].item(),
                "shock": shock[i].item(),
                "is_conflict": i == first,
            }
