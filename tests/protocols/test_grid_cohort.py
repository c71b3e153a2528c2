"""Cells of a grid that are trained together leave what they leave when each is trained by itself."""

import json

import pytest
import torch
from safetensors.torch import load_file

from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.journal import read_journal
from equipoise.pipelines.settings import ProtocolRecipe
from equipoise.protocols.knowledge import run_protocol

ARMS = "arms={sft: {name: sft}, r-eaft: {name: r-eaft, params: {tau: 1.0}}, recent: {name: r-eaft-recent}}"
FEW = ["data.limit=3", "data.keep=null", "data.skills=null"]
SMALL = [ARMS, *FEW, "training.epochs=2", "training.learning_rate=0.003"]


def ran(folder, *more, seeds="[1,2]"):
    recipe = resolve(ProtocolRecipe, None, [*SMALL, f"seeds={seeds}", *more])
    return run_protocol(recipe, folder)


def cells(folder):
    return [row["cell"] for row in read_journal(folder / "cells.jsonl").rows]


def adapter(folder, cell):
    tensors = load_file(folder / "cells" / cell / "final" / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def files(folder, cell):
    left = (path.relative_to(folder / "cells" / cell) for path in (folder / "cells" / cell).rglob("*"))
    own = ("checkpoint", "splits")  # of a single run; a cohort keeps them for all of its runs in one place
    return {str(path) for path in left if not str(path).startswith(own) and path.suffix != ".lock"}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grids")
    trace = "evaluation.weights_every=1"
    for how in ("seed", "off"):
        ran(folder / how, f"cohort={how}", trace)
    return folder / "seed", folder / "off"


def test_together_or_by_itself_a_cell_leaves_the_same(both):
    together, alone = both
    assert cells(together) == cells(alone) and len(cells(alone)) == 7
    for cell in cells(alone)[1:]:
        here, there = adapter(together, cell), adapter(alone, cell)
        assert torch.dist(here, there) < 1e-4 * there.norm(), cell
        assert files(together, cell) == files(alone, cell)
        for name in ("predictions.jsonl", "results.json"):
            assert (together / "cells" / cell / name).read_bytes() == (alone / "cells" / cell / name).read_bytes()
        for name, value in (("metrics.jsonl", "loss"), ("tokens.jsonl", "nll")):
            one, other = (read_journal(run / "cells" / cell / name).rows for run in both)
            assert [set(row) for row in one] == [set(row) for row in other]
            assert [row[value] for row in one] == pytest.approx([row[value] for row in other], rel=1e-3, abs=1e-3)
    assert json.loads((together / "analysis.json").read_text()) == json.loads((alone / "analysis.json").read_text())


def test_the_weights_are_followed_in_a_cohort_too(both):
    for cell in ("sft/seed-1", "r-eaft/seed-2"):
        one, other = (read_journal(run / "cells" / cell / "validation.jsonl").rows for run in both)
        assert len(one) == 2 and set(one[0]) == {"step", "updates_weight", "updates_nll"}
        for mine, theirs in zip(one, other, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3)


def test_a_grid_cut_off_after_some_cells_of_a_cohort_scores_the_others(both, tmp_path):
    import shutil

    folder = tmp_path / "cut"
    shutil.copytree(both[0], folder)
    rows = (folder / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "cells.jsonl").write_bytes(b"".join(rows[:3]))
    for cell in cells(both[0])[3:]:
        (folder / "cells" / cell / "predictions.jsonl").unlink()
    ran(folder, "cohort=seed", "evaluation.weights_every=1")
    assert cells(folder) == cells(both[0])
    for cell in cells(folder)[1:]:
        assert (folder / "cells" / cell / "predictions.jsonl").read_bytes() == (
            both[0] / "cells" / cell / "predictions.jsonl"
        ).read_bytes()
        assert torch.equal(adapter(folder, cell), adapter(both[0], cell))


def test_the_whole_grid_as_one_cohort(both, tmp_path):
    ran(tmp_path / "grid", "cohort=grid", "evaluation.weights_every=1")
    assert cells(tmp_path / "grid") == cells(both[0])
    assert (tmp_path / "grid" / "cohorts" / "grid" / "plan.json").exists()
    for cell in cells(both[0])[1:]:
        there = adapter(both[0], cell)
        assert torch.dist(adapter(tmp_path / "grid", cell), there) < 1e-4 * there.norm()


def test_a_cell_that_diverges_does_not_cost_the_others_and_is_an_error(tmp_path):
    arms = "arms={sft: {name: sft}, wild: {name: r-eaft, params: {tau: 1.0, alpha: 1.0e+37, clamp: 10.0}}}"
    for _ in range(2):  # the second time it has nothing left to train
        with pytest.raises(UserError, match="not a finite number"):
            ran(tmp_path / "run", arms, "training.epochs=30", "training.batch_size=1", seeds="[1]")
        assert cells(tmp_path / "run") == ["untrained", "sft/seed-1"]


def test_what_cannot_share_is_trained_one_by_one_and_says_why(tmp_path, capfd):
    ran(tmp_path / "run", "training.lora=null", "data.limit=1", "training.epochs=1", seeds="[1]")
    assert "one by one: a cohort trains adapters" in " ".join(capfd.readouterr().err.split())
    assert len(cells(tmp_path / "run")) == 4 and not (tmp_path / "run" / "cohorts").exists()
