"""Loads the sources given as JSON on the command line and prints what came of each; run in a process of its own."""

import json
import logging
import sys

from equipoise.data.loading import load_examples
from equipoise.errors import UserError


def outcome(source: str) -> dict:
    try:
        loaded = load_examples(source, max_bad_share=0.5)
    except UserError as error:
        return {"what": error.what, "where": error.where, "fix": error.fix, "docs": error.docs, "text": str(error)}
    return {
        "examples": [example.model_dump() for example in loaded.examples],
        "dropped": [[row.line, row.field, row.reason] for row in loaded.dropped],
        "notes": loaded.notes,
        "sha256": loaded.sha256,
    }


logging.basicConfig(level=logging.DEBUG)  # the most that a user could have switched on
print(json.dumps({source: outcome(source) for source in json.loads(sys.argv[1])}))
