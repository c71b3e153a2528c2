"""One realistic run directory for the whole suite of the report."""

import pytest
from fake_run import make_run


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """A finished Protocol A of five arms and five seeds. Read it, do not change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture
def small_run(tmp_path):
    """A small finished run that a test may damage."""
    return make_run(tmp_path / "small", arms=["sft", "r-eaft"], seeds=[42, 123])
