"""Which rows may stand before a row as examples, and how they are put there."""

import pytest

from equipoise.data.shots import FEW, LABEL, Shots, with_shots
from equipoise.records import Example, Message


def row(name, question, answer, **more):
    turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return Example(id=name, messages=turns, **more)


PLACES = [("Egypt", "Cairo"), ("Peru", "Lima"), ("Chad", "Ndjamena"), ("Oman", "Muscat"), ("Fiji", "Suva")]


def facts():
    verbs = ("name the capital", "which city governs", "seat of power in", "where do ministers sit for", "main town of")
    return [row(f"r{i}", f"{verb} {land}", city) for i, (verb, (land, city)) in enumerate(zip(verbs, PLACES))]


def test_the_choice_is_the_same_whatever_the_order_of_the_rows():
    given = facts()
    first = {e.id: [s.id for s in Shots(given).before(e)[0]] for e in given}
    turned = given[::-1]
    assert first == {e.id: [s.id for s in Shots(turned).before(e)[0]] for e in turned}
    assert all(name not in shots and 2 <= len(set(shots)) == len(shots) for name, shots in first.items())


@pytest.mark.parametrize(
    "bad",
    [
        row("bad", "name the capital Egypt", "Giza"),  # the same question
        row("bad", "something else", "cairo."),  # the same answer
        row("bad", "name the capital Egypt now", "Giza"),  # a near duplicate
        row("bad", "is Cairo large", "yes it is"),  # holds the answer
        row("bad", "once the seat was", "Memphis"),  # the outdated answer
        row("bad", "another one", "Aswan", meta={"group": "g"}),
        row("bad", "text of another form", "Luxor", form="text"),
    ],
)
def test_what_would_give_the_answer_away_is_never_shown(bad):
    asked = row("asked", "name the capital Egypt", "Cairo", old="Memphis", meta={"group": "g"})
    given = [asked, bad, *facts()[1:4]]
    shots, why = Shots(given).before(asked)
    assert why is None and "bad" not in [shot.id for shot in shots]
    assert Shots([asked, bad, facts()[1]]).before(asked) == (None, FEW)


def test_labels_have_no_examples_and_long_rows_have_two():
    labels = [row(f"l{i}", f"question {i} of {'abcdefgh'[i % 8] * 5}", "yes" if i % 2 else "no") for i in range(20)]
    assert Shots(labels).before(labels[0]) == (None, LABEL)
    long = [
        row(f"t{i}", f"{word} " * 200, f"{word[::-1]} " * 200)
        for i, word in enumerate(["abc", "def", "ghi", "jkl", "mno"])
    ]
    assert len(Shots(long).before(long[0])[0]) == 2


def test_turns_and_text():
    one, two, asked = facts()[:3]
    system = asked.model_copy(update={"messages": [Message(role="system", content="Be brief."), *asked.messages]})
    said = with_shots(system, [one, two], answer="Abeche")
    assert [m.role for m in said.messages] == ["system", *["user", "assistant"] * 3]
    assert said.completion == "Abeche" and said.prompt == asked.prompt
    text = with_shots(
        row("x", "c = ", "3", form="text"), [row("a", "a = ", "1", form="text"), row("b", "b = ", "2", form="text")]
    )
    assert text.form == "text" and [m.content for m in text.messages] == ["a = 1\n\nb = 2\n\nc = ", "3"]
