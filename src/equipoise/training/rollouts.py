"""The answers of a GRPO step: drawn in the curriculum's order, rewarded, drawn again where a group teaches nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from equipoise.data.formatting import render_prompt
from equipoise.metrics.entities import Pair
from equipoise.models.sampling import Drawn, draw
from equipoise.objectives.rewards import Rewarded, reward
from equipoise.records import Message
from equipoise.schedules.curriculum import Curriculum, Pick
from equipoise.training.grpo_settings import GrpoSettings

Refresh = Callable[[Any, int], tuple[Sequence[Sequence[Pair]], Sequence[float]]]


@dataclass(frozen=True)
class Item:
    """A prompt, and the entities that an answer to it is rewarded for."""

    id: str
    prompt: Sequence[Message]
    label: tuple[Pair, ...]
    types: tuple[str, ...]
    kind: Literal["target", "source"] = "target"


@dataclass(frozen=True)
class Group:
    """The answers to one prompt, with their rewards."""

    item: Item
    prompt_ids: list[int]
    answers: list[Drawn]
    rewards: list[Rewarded]

    @property
    def equal(self) -> bool:
        """Whether all rewards are the same, so that no answer is better than another and nothing is learned."""
        totals = [one.total for one in self.rewards]
        return max(totals) - min(totals) < 1e-8


class Rollouts:
    """Draws and rewards the groups of each step. What it draws hangs on the seed, the step and the policy alone."""

    def __init__(
        self,
        tokenizer: Any,
        targets: Sequence[Item],
        replay: Sequence[Item],
        curriculum: Curriculum,
        settings: GrpoSettings,
        seed: int,
        refresh: Refresh | None,
    ):
        self.tokenizer, self.curriculum, self.settings, self.seed = tokenizer, curriculum, settings, seed
        self.items = {"target": list(targets), "source": list(replay)}
        self.refresh = refresh
        self.numbers: dict[str, float] = {}  # of the last step
        self.drawn_for: list[str] = []  # the items of the last step
        self._weights = settings.rewards.model_dump()
        self._ids: dict[tuple[str, int], list[int]] = {}

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, list[Any]]:
        """What TRL calls for the answers of a step; its prompts only count them.

        Returns:
            prompt_ids, completion_ids, logprobs and reward of every answer, group by group.
        """
        step, model = trainer.state.global_step, trainer.accelerator.unwrap_model(trainer.model)
        if self.curriculum.due(step) and self.refresh is not None:
            self._relabel(model, step)
        groups = self.groups(model, step)
        rows = [(group, one, got) for group in groups for one, got in zip(group.answers, group.rewards)]
        return {
            "prompt_ids": [group.prompt_ids for group, _, _ in rows],
            "completion_ids": [[*one.ids, one.stop] if one.stop is not None else list(one.ids) for _, one, _ in rows],
            "logprobs": [list(one.logprobs) for _, one, _ in rows],
            "reward": [got.total for _, _, got in rows],
        }

    def groups(self, model: Any, step: int) -> list[Group]:
        """The groups of a step; those of equal rewards are drawn for other prompts, `resample_attempts` times."""
        groups = self._drawn(model, self.curriculum.batch(step), step, 0)
        first = sum(group.equal for group in groups) / len(groups)
        for attempt in range(1, self.settings.resample_attempts + 1):
            dull = [i for i, group in enumerate(groups) if group.equal]
            if not dull:
                break
            others = self.curriculum.batch(step, attempt)
            for i, group in zip(dull, self._drawn(model, [others[i] for i in dull], step, attempt)):
                groups[i] = groups[i] if group.equal else group
        self.drawn_for = [group.item.id for group in groups]
        self.numbers = self._measured(groups) | {
            "equal_share_first": first,
            "equal_share": sum(group.equal for group in groups) / len(groups),
            "stage": self.curriculum.stage(step),
            "share": self.curriculum.share(step),
        }
        return groups

    def _relabel(self, model: Any, step: int) -> None:
        """Labels and confidences anew, by the policy as it is."""
        assert self.refresh is not None
        labels, confidence = self.refresh(model, step)
        self.relabel(labels)
        self.curriculum.update(step, confidence)

    def relabel(self, labels: Sequence[Sequence[Pair]]) -> None:
        """Put other labels in place of the targets' own."""
        self.items["target"] = [
            Item(item.id, item.prompt, tuple((kind, text) for kind, text in label), item.types, item.kind)
            for item, label in zip(self.items["target"], labels, strict=True)
        ]

    def _drawn(self, model: Any, picks: Sequence[Pick], step: int, attempt: int) -> list[Group]:
        items = [self.items[pick.kind][pick.index] for pick in picks]
        prompts = [self._rendered(pick) for pick in picks]
        seeds = [
            [self._seed(step, attempt, place, sample) for sample in range(self.settings.group)]
            for place in range(len(picks))
        ]
        found: list[list[Drawn | None]] = [[None] * self.settings.group for _ in picks]
        training = model.training
        model.eval()
        for some in draw(
            model,
            self.tokenizer,
            prompts,
            seeds,
            temperature=self.settings.temperature,
            max_new_tokens=self.settings.max_new_tokens,
            batch_tokens=self.settings.batch_tokens,
        ):
            for one in some:
                found[one.prompt][one.sample] = one
        model.train(training)
        return [self._group(item, ids, [a for a in answers if a]) for item, ids, answers in zip(items, prompts, found)]

    def _group(self, item: Item, ids: list[int], answers: list[Drawn]) -> Group:
        texts = self.tokenizer.batch_decode([one.ids for one in answers], skip_special_tokens=True)
        room = self.settings.max_new_tokens
        return Group(
            item,
            ids,
            answers,
            [
                reward(text, item.label, item.types, self._weights, length=len(one.logprobs) / room)
                for text, one in zip(texts, answers)
            ],
        )

    def _rendered(self, pick: Pick) -> list[int]:
        key = (pick.kind, pick.index)
        if key not in self._ids:
            self._ids[key] = render_prompt(self.tokenizer, list(self.items[pick.kind][pick.index].prompt))
        return self._ids[key]

    def _seed(self, *numbers: int) -> int:
        text = " ".join(map(str, (self.seed, *numbers)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

    def _measured(self, groups: Sequence[Group]) -> dict[str, float]:
        got = [one for group in groups for one in group.rewards]
        lengths = [len(one.logprobs) for group in groups for one in group.answers]
        parts = {
            f"reward_{name}": sum(one.parts[name] for one in got) / len(got)
            for name, weight in self._weights.items()
            if weight and name != "length_penalty"
        }
        of_target = [one for group in groups if group.item.kind == "target" for one in group.rewards]
        return {
            "reward": sum(one.total for one in got) / len(got),
            "reward_target": sum(one.total for one in of_target) / max(len(of_target), 1),
            **parts,
            "valid": sum(one.valid for one in got) / len(got),
            "non_empty": sum(one.valid and not one.empty for one in got) / len(got),
            "length": sum(lengths) / len(lengths),
            "cut": sum(one.stop is None for group in groups for one in group.answers) / len(lengths),
        }
