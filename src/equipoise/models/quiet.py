"""What the libraries say while they load and train: silenced where no user can act on it, explained where one can."""

from __future__ import annotations

import logging as standard_logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from equipoise.errors import UserError

# what the libraries say to each other, and no user can act on
_NOISE = (
    r"`is_gradient_checkpointing` is deprecated",  # peft 0.21 asks transformers 5.23 by the old name
    r"You are using 'rollout_func', which is an experimental feature",  # of TRL; `CurriculumTrainer` is tested with it
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing its own progress bars and advice over ours."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    standard_logging.getLogger("bitsandbytes").setLevel("ERROR")  # it warns at import of a CPU kernel it can do without
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what the Hub and the loaders raise into one message; the token itself never appears in it."""
    from huggingface_hub import errors as hub

    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        chain, seen = error, []
        while chain is not None and chain not in seen:
            seen.append(chain)
            chain = chain.__cause__ or chain.__context__
        where = f"model.path: {path}"
        if any(isinstance(e, hub.GatedRepoError) for e in seen):
            raise UserError(
                f"{path} is gated, and no token with access was found",
                where=where,
                fix="accept its terms on huggingface.co, then set HF_TOKEN or run `hf auth login`",
                docs="docs/models.md#gated",
            ) from error
        if any(isinstance(e, hub.RepositoryNotFoundError | hub.RevisionNotFoundError) for e in seen):
            raise UserError(
                f"the Hugging Face Hub has no model {path} (or it is private)",
                where=where,
                fix="check the name and revision; for a private model set HF_TOKEN or run `hf auth login`",
            ) from error
        if any(isinstance(e, hub.LocalEntryNotFoundError) for e in seen):
            raise UserError(
                f"there is no folder {path} here, and the Hugging Face Hub cannot be reached to look for the model",
                where=where,
                fix="check the path, which counts from the folder you are in, or the connection to the Hub",
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the model cannot be loaded: {first}",
            where=where,
            fix="check the files, the free memory, and that this version of transformers knows the architecture",
        ) from error
