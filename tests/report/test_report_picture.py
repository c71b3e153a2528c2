import numpy as np
import pytest
from matplotlib.image import imread

from equipoise.errors import UserError
from equipoise.report.picture import build_picture


def test_the_picture_is_1600_wide_filled_and_repeatable(full_run, tmp_path):
    first = build_picture(full_run, tmp_path / "a.png")
    image = imread(first)
    assert image.shape[1] == 1600
    left, right = image[:, :800, :3], image[:, 800:, :3]
    assert left.std() > 0.02 and right.std() > 0.1
    assert np.allclose(image[:3, :, :3], 1), "a white margin"
    assert build_picture(full_run, tmp_path / "b.png").read_bytes() == first.read_bytes()


def test_the_picture_falls_back_to_retention(small_run, tmp_path):
    assert build_picture(small_run, tmp_path / "p.png", against="nothing like it").stat().st_size > 10_000


def test_without_an_analysis_there_is_no_picture(small_run, tmp_path):
    (small_run / "analysis.json").unlink()
    with pytest.raises(UserError, match=r"analysis\.json"):
        build_picture(small_run, tmp_path / "p.png")
