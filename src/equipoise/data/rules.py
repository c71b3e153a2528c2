"""The rules by which cleaning leaves rows out, in words, in the order in which rows meet them."""

RULES = {
    "broken": "no JSON object, or one that cannot be trusted",
    "schema": "in none of the known schemas, or not as its schema asks",
    "empty": "a question or an answer says nothing",
    "control": "control characters stand in the marks of a code block",
    "echo": "the answer is the question",
    "repetition": "one character, line or word over and over",
    "licence": "a licence that is not allowed, or none",
    "duplicate": "the same text as an earlier row",
    "overlap": "the question stands in a held-out set",
    "short": "below the window of lengths",
    "long": "above the window of lengths",
    "thinned": "one of too many long rows",
    "near-overlap": "the question is a near duplicate of a held-out one",
    "near-duplicate": "a near duplicate of an earlier row",
    "mixture": "more of its source than the mixture has room for",
}
