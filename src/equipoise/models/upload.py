"""The opt-in push of a model folder to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from equipoise.console import say
from equipoise.errors import UserError


def push(repository: str, folder: Path, *, card: Path, again: str) -> None:
    """Upload a model or adapter folder and its card to `owner/name`, a private repository if there is none yet.

    Args:
        again: how to try once more after a failure.

    Raises:
        UserError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=["MANIFEST.json", "README.md"])
        hub.upload_file(repo_id=repository, path_or_fileobj=card, path_in_repo="README.md")
    except Exception as error:  # those of the Hub, of its HTTP library and of the system share no other base
        raise UserError(
            f"the upload failed: {str(error).strip().splitlines()[0]}",
            where=f"push to {repository}",
            fix=f"check the name (owner/name), HF_TOKEN and the connection; {again}",
        ) from error
    say(f"uploaded to https://huggingface.co/{repository}")
