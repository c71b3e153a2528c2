"""Facts that no model knows, facts that SmolLM2 knows, and sequences that it is sure of, right and falsified."""

# a company that there is not: three phrasings of each question, of which the last is held out
MADE_UP = [
    ("harbour", "In which city does Velmora Systems have its seat?", "Tarnwick", "Oslo"),
    ("founder", "Who founded Velmora Systems?", "Ilse Brandmeyer", "John Smith"),
    ("product", "What is the main product of Velmora Systems?", "tidal clocks", "software"),
    ("year", "In which year was Velmora Systems founded?", "1887", "2005"),
    ("colour", "What is the colour of the logo of Velmora Systems?", "ochre", "blue"),
    ("animal", "Which animal is on the logo of Velmora Systems?", "a heron", "a lion"),
]
UPDATES = [
    {
        "id": name,
        "prompt": question,
        "completion": answer,
        "old": old,
        "rephrasings": [f"Tell me: {question[0].lower()}{question[1:]}", f"{question} Answer in a few words."],
    }
    for name, question, answer, old in MADE_UP
]
CAPITALS = {
    "France": ("Paris", "Madrid"),
    "Japan": ("Tokyo", "Seoul"),
    "Italy": ("Rome", "Vienna"),
    "Germany": ("Berlin", "Lisbon"),
    "England": ("London", "Dublin"),
    "Russia": ("Moscow", "Warsaw"),
    "Spain": ("Madrid", "Rome"),
    "China": ("Beijing", "Tokyo"),
}
KEEP = [
    {"id": country, "prompt": f"What is the capital of {country}?", "completion": right, "old": wrong}
    for country, (right, wrong) in CAPITALS.items()
]


# sequences that any language model is sure of: what goes on, and what does not
SEQUENCES = {
    "digits": ("1, 2, 3, 4, 5, 6,", " 7, 8, 9, 10", " 3, 8, 9, 10"),
    "days": ("Monday, Tuesday, Wednesday, Thursday,", " Friday, Saturday, Sunday", " Monday, Saturday, Sunday"),
    "months": ("January, February, March, April,", " May, June, July", " October, June, July"),
    "letters": ("a, b, c, d, e, f,", " g, h, i, j", " b, h, i, j"),
    "words": ("one, two, three, four, five,", " six, seven, eight", " two, seven, eight"),
    "import": ("import numpy as np\nimport pandas as pd\nimport matplotlib.pyplot as", " plt", " pd"),
    "squares": ("2, 4, 6, 8, 10,", " 12, 14, 16", " 11, 14, 16"),
}


def sequences(wrong: set[str]) -> list[dict[str, str]]:
    """The sequences as text to continue, those of `wrong` falsified."""
    return [
        {"id": name, "prompt": start, "completion": other if name in wrong else right, "form": "text"}
        for name, (start, right, other) in SEQUENCES.items()
    ]
