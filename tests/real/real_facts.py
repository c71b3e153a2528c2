"""Facts that no model knows, facts that SmolLM2 knows, and the same facts falsified."""

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


def falsified(countries: set[str]) -> list[dict[str, str]]:
    """Statements of the capitals as SmolLM2 would make them; those of `countries` are wrong."""
    return [
        {
            "id": country,
            "prompt": f"What is the capital of {country}?",
            "completion": f"The capital of {country} is {wrong if country in countries else right}.",
        }
        for country, (right, wrong) in CAPITALS.items()
    ]
