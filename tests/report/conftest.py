"""Realistic run directories for the whole suite of the report."""

import shutil

import pytest
from fake_confidence import make_confidence_run
from fake_instruct import make_instruct_run
from fake_run import make_run
from fake_synthetic import make_synthetic_run


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """A finished Protocol A of five arms and five seeds. Read it, do not change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture(scope="session")
def made_small_run(tmp_path_factory):
    """A small finished run."""
    return make_run(tmp_path_factory.mktemp("runs") / "small", arms=["sft", "r-eaft"], seeds=[42, 123])


@pytest.fixture
def small_run(made_small_run, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(made_small_run, tmp_path / "small")


@pytest.fixture(scope="session")
def confidence_run(tmp_path_factory):
    """A finished run of confidence tokens with three seeds and a stronger model. Read it, do not change it."""
    return make_confidence_run(tmp_path_factory.mktemp("runs") / "confidence")


@pytest.fixture(scope="session")
def made_sure_run(tmp_path_factory):
    """A finished run of confidence tokens with one seed."""
    return make_confidence_run(tmp_path_factory.mktemp("runs") / "sure", seeds=[42], strong=False)


@pytest.fixture
def sure_run(made_sure_run, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(made_sure_run, tmp_path / "sure")


@pytest.fixture(scope="session")
def synthetic_run(tmp_path_factory):
    """A finished run of eight arms and three seeds that learned from own labels. Read it, do not change it."""
    return make_synthetic_run(tmp_path_factory.mktemp("runs") / "synthetic")


@pytest.fixture(scope="session")
def lone_synthetic_run(tmp_path_factory):
    """One seed of three arms."""
    arms = ["sft", "all-at-once", "curriculum"]
    return make_synthetic_run(tmp_path_factory.mktemp("runs") / "lone", seeds=[42], arms=arms, n=40)


@pytest.fixture
def lone_run(lone_synthetic_run, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(lone_synthetic_run, tmp_path / "lone")


@pytest.fixture(scope="session")
def instruct_run(tmp_path_factory):
    """A finished run of cleaning, SFT and DPO with three seeds. Read it, do not change it."""
    return make_instruct_run(tmp_path_factory.mktemp("runs") / "instruct")


@pytest.fixture(scope="session")
def made_taught_run(tmp_path_factory):
    """A finished run of cleaning, SFT and DPO with one seed."""
    return make_instruct_run(tmp_path_factory.mktemp("runs") / "taught", seeds=[1], n=30)


@pytest.fixture
def taught_run(made_taught_run, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(made_taught_run, tmp_path / "taught")
