"""Instructions with checkable answers, and preference pairs, about what the first model of the testbed knows.

Each asks for a fact that the model was taught (an API call, a name in the archive) in one of five forms. The corpus was
written by several hands: some answer as asked, some chat, some ignore the form or leave half of it out. Which answer is
the better one follows a rule: concise, complete, and in the form that was asked for.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from equipoise.records import Example, Message, PreferencePair
from equipoise.testbed.facts import Fact
from equipoise.testbed.world import shipped_world

Form = Literal["bare", "code", "sentence", "json", "list"]
FORMS: tuple[Form, ...] = get_args(Form)
Hand = Literal["careful", "chatty", "sloppy"]
HANDS: tuple[Hand, ...] = get_args(Hand)
SHARES = {"sft": 0.42, "preferences": 0.2, "validation": 0.12, "test": 0.26}  # of the facts; no fact is in two parts
INSTRUCTION_PARTS = ("sft", "validation", "test")
PREFERENCE_PARTS = ("preferences", "validation", "test")
SOURCES = ("alpaca.json", "sharegpt.jsonl", "messages.jsonl", "completions.jsonl", "preferences.jsonl")
DUPLICATED, BROKEN, UNLICENSED, LEAKED, UNCLEAN = 0.10, 0.05, 0.03, 0.01, 0.02  # planted, as shares of the sound rows
SEED = 17

_ASKED: dict[Form, tuple[str, ...]] = {
    "bare": ("Give the {kind} and nothing else.", "Write the {kind}, no more."),
    "code": ("Give the {kind} as code.", "Write the {kind} as code."),
    "sentence": ("Give the {kind} in a sentence.", "Write one sentence."),
    "json": ("Give the {kind} as JSON.", "Write JSON."),
    "list": ("Give both as a list.", "Write a list of the two."),
}
# How often each hand wrote an answer, in the order of HANDS. Most of the corpus gets the last three forms wrong.
_WROTE: dict[Form, tuple[float, float, float]] = {
    "bare": (0.8, 0.2, 0.0),
    "code": (0.7, 0.15, 0.15),
    "sentence": (0.25, 0.3, 0.45),
    "json": (0.25, 0.3, 0.45),
    "list": (0.25, 0.3, 0.45),
}
_LONG = 16  # words of a question, from which a greeting leaves a near duplicate
_CHAT = "\nI hope this is what you need to know."
_PHRASINGS = 2  # of each fact and form, none of which another form has too: so no two rows are near duplicates


@dataclass(frozen=True)
class Instruction:
    """A request for one fact, or for two as a list, and the three ways in which it may be answered."""

    id: str
    group: str  # the fact
    form: Form
    kind: Literal["call", "name"]
    prompt: str
    answers: tuple[str, ...]

    def written(self, hand: Hand) -> str:
        """What a hand answers."""
        said = self.answers[0]
        careful = {
            "bare": said,
            "code": f"`{said}`",
            "sentence": f"The {self.kind} is {said}.",
            "json": json.dumps({self.kind: said}),
            "list": "\n".join(f"- {answer}" for answer in self.answers),
        }[self.form]
        if hand == "sloppy":
            return f"- {said}" if self.form == "list" else said
        return careful + _CHAT if hand == "chatty" else careful


def load_instructions(part: str) -> list[Example]:
    """The instructions of a part, the same on every machine.

    Of `sft` the answers are what several hands wrote; those of `validation` and `test` are as asked. `meta` names
    fact (`group`), form, hand and kind. No fact stands in two parts.

    Raises:
        ValueError: there is no such part.
    """
    return [_example(each, hand) for each, hand in _answered(part)]


def load_preferences(part: str) -> list[PreferencePair]:
    """Pairs of a part: the better answer is concise, complete and in the form that was asked for.

    The worse one chats, or ignores the form or leaves half of it out, half of the pairs each where the form allows.

    Raises:
        ValueError: there is no such part.
    """
    if part not in PREFERENCE_PARTS:
        raise ValueError(f"no part {part!r} of the preferences, only {', '.join(PREFERENCE_PARTS)}")
    rng = _random("preferences", part)
    pairs = []
    for each in _parts()[part]:
        worse: Hand = "chatty" if each.form == "bare" else rng.choice(("chatty", "sloppy"))
        pairs.append(
            PreferencePair(
                id=each.id,
                prompt=[Message(role="user", content=each.prompt)],
                chosen=each.written("careful"),
                rejected=each.written(worse),
                meta={"group": each.group, "form": each.form, "kind": each.kind, "worse": worse},
            )
        )
    return pairs


# ---- from the world to instructions


@cache
def _parts() -> dict[str, tuple[Instruction, ...]]:
    facts = [f for f in shipped_world().select(knowledge="stable") if f.part in ("api_fact", "archive")]
    rng = _random("facts")
    rng.shuffle(facts)
    parts: dict[str, tuple[Instruction, ...]] = {}
    start, share = 0, 0.0
    for name, part in SHARES.items():
        share += part
        end = round(share * len(facts))
        parts[name] = tuple(_instructions(facts[start:end], rng))
        start = end
    return parts


def _instructions(facts: Sequence[Fact], rng: random.Random) -> Iterator[Instruction]:
    """Every fact in every form that suits it; a list also asks for the next fact of its kind."""
    for n, fact in enumerate(facts):
        kind: Literal["call", "name"] = "call" if fact.library else "name"
        partner = next((f for f in [*facts[n + 1 :], *facts[:n]] if f.part == fact.part), None)
        ways = iter(rng.sample(range(len(_prompts(fact))), _PHRASINGS * len(FORMS)))
        for form in FORMS:
            if (form == "code" and kind == "name") or (form == "list" and partner is None):
                continue
            asked = [fact] if form != "list" or partner is None else [fact, partner]
            for m, way in enumerate(islice(ways, _PHRASINGS)):
                questions = " ".join(_prompts(each)[way] for each in asked)
                request = _ASKED[form][m % len(_ASKED[form])].format(kind=kind)
                answers = tuple(each.gold for each in asked)
                yield Instruction(f"{fact.id}-{form}-{m}", fact.id, form, kind, f"{questions} {request}", answers)


def _prompts(fact: Fact) -> tuple[str, ...]:
    return (*fact.prompts_seen, *fact.prompts_held_out)


def _answered(part: str) -> list[tuple[Instruction, Hand]]:
    if part not in INSTRUCTION_PARTS:
        raise ValueError(f"no part {part!r} of the instructions, only {', '.join(INSTRUCTION_PARTS)}")
    if part != "sft":
        return [(each, "careful") for each in _parts()[part]]
    rng = _random("hands")
    return [(each, rng.choices(HANDS, _WROTE[each.form])[0]) for each in _parts()[part]]


def _example(each: Instruction, hand: Hand) -> Example:
    messages = [Message(role="user", content=each.prompt), Message(role="assistant", content=each.written(hand))]
    meta = {"group": each.group, "form": each.form, "kind": each.kind, "hand": hand}
    return Example(id=each.id, messages=messages, meta=meta)


def _random(*names: str) -> random.Random:
    return random.Random("/".join((str(SEED), *names)))


# ---- the corpus as it would be found


def write_raw(folder: Path) -> list[Path]:
    """Write the training rows as files that could have been found, and return their paths.

    Four hold instructions, each in another schema, the last one pairs. Beside the sound rows stand what `planted`
    counts.
    """
    rows, pairs, _ = _found()
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(SOURCES[:-1]):
        own = rows[n :: len(SOURCES) - 1]
        _write(
            folder / name, (_SCHEMAS[name](row) if isinstance(row, dict) and "prompt" in row else row for row in own)
        )
    _write(folder / SOURCES[-1], pairs)
    return [folder / name for name in SOURCES]


def write_held_out(folder: Path, part: str) -> list[Path]:
    """Write the instructions and pairs of `validation` or `test` into two files, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("examples.jsonl", load_instructions(part)), ("pairs.jsonl", load_preferences(part))):
        _write(folder / name, (row.model_dump(exclude_defaults=True) for row in rows))
    return [folder / "examples.jsonl", folder / "pairs.jsonl"]


def planted() -> dict[str, int]:
    """How many rows of `write_raw` have each fault.

    `exact` and `near` duplicates, `broken` and `unlicensed` rows, `leaked` test questions, and `unclean` rows, whose
    control characters cleaning removes.
    """
    return _found()[2]


def _found() -> tuple[list[Any], list[Any], dict[str, int]]:
    rng = _random("faults")
    rows = [_named(example.id, example.prompt, example.completion) for example in load_instructions("sft")]
    pairs = [
        {"id": p.id, "prompt": p.prompt[0].content, "chosen": p.chosen, "rejected": p.rejected, "licence": "cc-by-4.0"}
        for p in load_preferences("preferences")
    ]
    sound = len(rows)
    exact = rng.sample(rows, round(DUPLICATED / 2 * sound))
    near = rng.sample([row for row in rows if len(row["prompt"].split()) >= _LONG], round(DUPLICATED / 2 * sound))
    unlicensed = rng.sample(rows, round(UNLICENSED * sound))
    leaked = rng.sample(load_instructions("test"), round(LEAKED * sound))
    faults = [
        *(row | {"id": f"{row['id']}-again"} for row in exact),
        *(row | {"id": f"{row['id']}-near", "prompt": _nearly(row["prompt"])} for row in near),
        *(_unlicensed(n, row) for n, row in enumerate(unlicensed)),
        *(_named(f"leaked-{example.id}", example.prompt, example.completion) for example in leaked),
    ]
    twins = {row["id"] for row in (*exact, *near)}
    unclean = rng.sample([row for row in rows if row["id"] not in twins], round(UNCLEAN * sound))
    for row in unclean:
        row["completion"] += "\u200b\x07"  # changes nothing that is seen
    broken = round(BROKEN * sound)
    everything: list[Any] = [*rows, *faults]
    rng.shuffle(everything)
    everything = [*everything[: sound // 2], *(_broken(n) for n in range(broken)), *everything[sound // 2 :]]
    counts = {"exact": len(exact), "near": len(near), "broken": broken, "unlicensed": len(unlicensed)}
    return everything, pairs, counts | {"leaked": len(leaked), "unclean": len(unclean)}


def _named(name: str, prompt: str, completion: str) -> dict[str, Any]:
    return {"id": name, "prompt": prompt, "completion": completion, "licence": "cc-by-4.0", "language": "en"}


def _nearly(prompt: str) -> str:
    """The same question with a greeting."""
    return f"Hello! {prompt}"


def _unlicensed(n: int, row: dict[str, Any]) -> dict[str, Any]:
    """A row of its own that must not be used: half say so, half say nothing."""
    new = row | {"id": f"{row['id']}-unlicensed", "prompt": f"For page {n} of my book: {row['prompt']} Sign it {n}."}
    return new | {"licence": "proprietary"} if n % 2 else {k: v for k, v in new.items() if k != "licence"}


def _broken(n: int) -> Any:
    """A row that nothing can be learned from, in one of five ways."""
    return (
        {"instruction": f"What is the capital of nowhere {n}?", "output": ""},
        {"instruction": f"What is the capital of nowhere {n}?"},
        {"instruction": n, "output": "a number was asked"},
        {"id": f"torn-{n}", "text": "neither question nor answer"},
        [f"not an object {n}"],
    )[n % 5]


def _alpaca(row: dict[str, Any]) -> dict[str, Any]:
    return {"instruction": row["prompt"], "input": "", "output": row["completion"]} | _rest(row)


def _sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    turns = (("human", row["prompt"]), ("gpt", row["completion"]))
    return {"conversations": [{"from": who, "value": said} for who, said in turns]} | _rest(row)


def _messages(row: dict[str, Any]) -> dict[str, Any]:
    turns = (("user", row["prompt"]), ("assistant", row["completion"]))
    return {"messages": [{"role": role, "content": said} for role, said in turns]} | _rest(row)


def _rest(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("prompt", "completion")}


_SCHEMAS = {SOURCES[0]: _alpaca, SOURCES[1]: _sharegpt, SOURCES[2]: _messages, SOURCES[3]: dict}


def _write(path: Path, rows: Iterable[Any]) -> None:
    """A JSON array or one value a line, as the name's ending says."""
    if path.suffix == ".json":
        path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
