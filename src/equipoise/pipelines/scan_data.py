"""What a scan reads: rows in any known form, the folder of a cleaning run, or the testbed's."""

from pathlib import Path

from equipoise.data.loading import Loaded, load_examples
from equipoise.data.schemas import COLUMNS, as_draft
from equipoise.errors import UserError
from equipoise.pipelines.cleaning import EXAMPLES, PAIRS
from equipoise.testbed.examples import TESTBED, load_facts
from equipoise.testbed.instructions import load_instructions

INSTRUCTIONS = "testbed:instructions"


def load_any(source: str, *, max_bad_share: float) -> Loaded:
    """The examples of a source; of a preference pair the better answer.

    Args:
        source: a JSONL file or JSON array in a form that `data clean` knows, `hub:NAME:SPLIT`, the folder of a cleaning
            run, `testbed:instructions`, `testbed:facts` or `testbed:PART[:CLASS]`.

    Raises:
        UserError: it cannot be read, has no usable row, or too many that are not.
    """
    if source == INSTRUCTIONS:
        return Loaded(load_instructions("sft"), [], [], "")
    if source.startswith(TESTBED):
        examples, sha256 = load_facts(source)
        return Loaded(examples, [], [], sha256)
    return load_examples(rows_of(source), max_bad_share=max_bad_share, parse=as_draft, fields=COLUMNS)


def rows_of(source: str) -> str:
    """The file of rows that a source means; of a cleaning run's folder its instructions, or else its pairs.

    Raises:
        UserError: the folder holds neither.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return source
    found = next((folder / name for name in (EXAMPLES, PAIRS) if (folder / name).is_file()), None)
    if found is None:
        raise UserError(
            f"this folder has neither {EXAMPLES} nor {PAIRS}",
            where=source,
            fix="give a file of rows, or the folder that `equipoise data clean` wrote",
        )
    return str(found)
