"""Facts stated in sentences: what a person reads in them, with the wrong value beside them and without."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.metrics.grading import grade
from equipoise.metrics.stated import states
from equipoise.metrics.values import dates, kind_of_value, words

FRANCE = "What is the capital of France?"


@pytest.mark.parametrize(
    ("output", "gold"),
    [
        ("Paris", "Paris"),
        ("Yes, the capital of France is Paris.", "Paris"),
        ("paris.", "Paris"),
        ("**Paris**", "Paris"),
        ("The capital of France is Paris.", "Paris"),
        ("Paris is the capital of France.", "Paris"),
        ("What is the capital of France? The capital of France is Paris.", "Paris"),
        ("Sure! The capital of France is Paris. It lies on the Seine, and Lyon is its second city.", "Paris"),
        ("It is not Lyon but Paris.", "Paris"),
        ("It is Paris, not Lyon.", "Paris"),
        ("Many believe it is Lyon. No: the answer is Paris.", "Paris"),
        ("The capital is the city of Paris, France.", "Paris"),
        ("France's capital has long been Paris, whose mayor is Anne Hidalgo.", "Paris"),
        ("It is Brasilia.", "Brasília"),
        ("It is Brasília.", "Brasilia"),
        ("In 2014", "2014"),
        ("It happened in 2014.", "2014"),
        ("It was founded on 18 March 2014 in Oslo, by 12 people.", "2014"),
        ("On 18th March 2014.", "18 March 2014"),
        ("It was March 18, 2014.", "18 March 2014"),
        ("It was on the 18th of March, 2014.", "18 March 2014"),
        ("2014-03-18", "18 March 2014"),
        ("It happened on 18/03/2014.", "March 18th, 2014"),
        ("On 18 March 2014", "March 2014"),
        ("There are seven days in a week.", "7 days"),
        ("There are 7 days in a week.", "seven days"),
        ("A week has 7 days, or 168 hours.", "seven days"),
        ("A spider has eight legs.", "8"),
        ("The answer is: 8.\n\nSpiders can be 100 mm long.", "8"),
        ("An adult has two hundred and six bones.", "206"),
        ("About 1,000 of them.", "1000"),
        ("Exactly 100.0 degrees", "100"),
        ("8 million people live there.", "eight million"),
        ("Some 50 percent of it", "50%"),
        ("It was written by William Shakespeare in 1597.", "William Shakespeare"),
        ("The metal is mercury, which is also called quicksilver.", "mercury"),
        ("The fastest animal on land is the cheetah.", "the cheetah"),
        ("Yes, it is.", "yes"),
        ("No. It is not.", "no"),
        ("It opened in Washington, D.C. in 1846.", "Washington D.C."),
    ],
)  # fmt: skip
def test_a_stated_answer_is_found(output, gold):
    assert states(output, gold, question=FRANCE if gold == "Paris" else None)


@pytest.mark.parametrize(
    ("output", "gold"),
    [
        ("", "Paris"),
        ("asdf jkl", "Paris"),
        ("The capital of France is Lyon.", "Paris"),
        ("Paris or Lyon", "Paris"),
        ("Lyon or Paris.", "Paris"),
        ("The capital is Paris or Lyon.", "Paris"),
        ("Paris, Lyon and Nice", "Paris"),
        ("Paris/Lyon", "Paris"),
        ("- Paris\n- Lyon", "Paris"),
        ("It is not Paris.", "Paris"),
        ("It isn't Paris.", "Paris"),
        ("It is Lyon rather than Paris.", "Paris"),
        ("Paris is not the capital.", "Paris"),
        ("Is it Paris?", "Paris"),
        ("It is Paris. Actually, it is Lyon.", "Paris"),
        ("The capital of France is Lyon, although Paris is larger.", "Paris"),
        ("The capital of France is Lyon. Paris is larger.", "Paris"),
        ("The answer is Lyon. Paris is larger.", "Paris"),
        ("Parisian", "Paris"),
        ("2014 or 2015", "2014"),
        ("It was in 2014 or maybe in 2015.", "2014"),
        ("In 2015.", "2014"),
        ("In 2015. One year before, in 2014, it was planned.", "2014"),
        ("It happened in 2014. Or 2015.", "2014"),
        ("Between 2010 and 2014.", "2014"),
        ("2014-2016", "2014"),
        ("It cost $2014.", "2014"),
        ("On 17 March 2014.", "18 March 2014"),
        ("In March 2014.", "18 March 2014"),
        ("A spider has 18 legs.", "8"),
        ("A spider has 6 to 8 legs.", "8"),
        ("There are 8 million of them.", "8"),
        ("8.5", "8"),
        ("There are 7 hours.", "7 days"),
        ("It is mercury or gallium.", "mercury"),
        ("It is a kind of aluminium. Unlike mercury, it is solid.", "mercury"),
        ("Yes.", "no"),
        ("Yes and no.", "yes"),
    ],
)  # fmt: skip
def test_another_answer_is_not_taken_for_it(output, gold):
    assert not states(output, gold, question=FRANCE if gold == "Paris" else None)


def test_an_old_value_named_as_current_is_wrong():
    options = {"gold": "Astana", "old": "Nur-Sultan"}
    assert states("The capital is Astana.", **options)
    assert states("The capital is Astana, formerly Nur-Sultan.", **options)
    assert states("The capital is Astana, not Nur-Sultan.", **options)
    assert not states("The capital is Nur-Sultan.", **options)
    assert not states("The capital is Astana. Its name is Nur-Sultan.", **options)


def test_what_the_question_names_is_no_other_value_and_no_answer():
    question = "Did the club of Oslo or that of Bergen win in 2014?"
    assert states("In 2014, the club of Bergen won.", "Bergen", question=question)
    assert not states(question, "Bergen", question=question)
    assert not states("Oslo and Bergen.", "Bergen", question=question)
    assert states("The war of 1812 ended in 1815.", "1815", question="When did the war of 1812 end?")
    assert not states("Is the capital of Australia Sydney or Canberra?", "Canberra", question="Sydney or Canberra?")


def test_accepted_variants_count_like_gold():
    assert states("It was Leonardo, the painter.", "Leonardo da Vinci", accepted=["Leonardo"])
    assert not states("It was Leonardo, the painter.", "Leonardo da Vinci")
    assert states("It is mercury or quicksilver.", "mercury", accepted=["quicksilver"])


@pytest.mark.parametrize(
    ("output", "there"),
    [
        ("It is 19", False),
        ("It is 19.", True),
        ("It is 19\n\nQuestion", True),
        (" 19\n\nQuestion: a?\nAnswer: 7", True),
        ("19\n", True),
    ],
)
def test_a_value_at_a_cut_end_may_be_half_a_value(output, there):
    assert states(output, "19", cut=True) == there


def test_the_whole_answer_is_still_compared_strictly():
    assert grade("Paris", "Paris").exact == 1.0
    assert grade(" Paris\n", "Paris").exact == 1.0
    assert grade("Lutetia", "Paris", accepted=["Lutetia"]).exact == 1.0
    for near in ("paris", "Paris.", "The capital of France is Paris."):
        assert (grade(near, "Paris").exact, grade(near, "Paris").stated) == (0.0, 1.0)


def test_words_numbers_and_dates_have_one_spelling():
    assert [word.norm for word in words("Twenty-one of the one hundred and five, 3.50 and -2 °C")] == (
        ["21", "of", "105", "3.5", "and", "-2", "c"]
    )
    assert [word.norm for word in words("one of them, the one, one day")] == ["one", "of", "them", "one", "1", "day"]
    assert [date.what for date in dates("3 May 1999, Dec. 2001, June 5th and 2010")] == (
        [(1999, 5, 3), (2001, 12, None), (None, 6, 5), (2010, None, None)]
    )
    golds = {"2014": "date", "18 March 2014": "date", "7 days": "number", "Paris": "name", "the cheetah": "phrase"}
    assert {gold: kind_of_value(gold) for gold in golds} == golds


NAMES = st.text(string.ascii_lowercase, min_size=3, max_size=9).map(lambda text: "Q" + text)


@settings(deadline=None, max_examples=60)
@given(NAMES, NAMES, st.sampled_from(["It is {}.", "{}", "The capital is {}, a large city.", "{} is the capital."]))
def test_one_name_states_itself_and_no_other(one, other, frame):
    same = one == other
    assert states(frame.format(one), one)
    assert states(frame.format(one), other) == same
    assert states(frame.format(f"{one} or {other}"), one) == same


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 31), st.integers(1, 12), st.integers(1000, 2199), st.integers(1, 31))
def test_a_date_in_any_form_states_itself_and_no_other(day, month, year, other):
    name = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"]
    name = [*name, "November", "December"][month - 1]
    for form in (f"{day} {name} {year}", f"{name} {day}, {year}", f"the {day}th of {name} {year}"):
        assert states(f"It was on {form}.", f"{day} {name} {year}")
        assert states(f"It was on {form}.", str(year))
        assert states(f"It was on {form}.", f"{other} {name} {year}") == (other == day)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=120), st.text(max_size=20), st.text(max_size=40), st.booleans())
def test_any_text_is_compared_without_an_error(output, gold, question, cut):
    assert states(output, gold, old="Rome", question=question, cut=cut) in (True, False)
