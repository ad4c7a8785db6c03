import json
import shutil

import pytest

from training.comparison import repeats
from training.config import Machine
from training.progress import Silent
from training.runs.run import Run

MACHINE = Machine("cpu", 2)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run beside which others may be made."""
    shutil.copytree(finished.runs, tmp_path / "runs")
    return Run(tmp_path / "runs" / "colours" / finished.run.path.name)


def test_each_photo_outside_the_test_split_is_held_out_once(finished):
    whole = finished.run.split()
    splits = repeats.fold_splits(whole, 4)
    untouched = {photo.digest for photo in whole.part("test")}
    held = [photo.digest for parted in splits for photo in parted.part("test")]
    assert sorted(held) == sorted({photo.digest for photo in whole.photos} - untouched)
    for parted in splits:
        parts = [{photo.digest for photo in parted.part(part)} for part in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(held)
        assert all(parts)
        assert not untouched & set.union(*parts)


def test_folds_are_runs_of_their_own_and_the_first_run_stays_as_it_was(copied):
    before = (copied.evaluation(), copied.split())
    found = repeats.over_folds(copied, 2, MACHINE, Silent())
    assert [row.name for row in found.rows] == ["fold 1 of 2", "fold 2 of 2"]
    assert sum(row.n for row in found.rows) == len(copied.split().part("train")) + len(copied.split().part("val"))
    assert found.top1.mean == pytest.approx(sum(row.top1 for row in found.rows) / 2)
    assert found.top1.deviation == pytest.approx(abs(found.rows[0].top1 - found.rows[1].top1) / 2**0.5)
    assert (copied.evaluation(), copied.split()) == before
    assert json.loads((copied.path / "folds.json").read_text())["rows"][0]["run"] == found.rows[0].run


def test_seeds_share_the_split_and_go_on_where_they_were_left(copied):
    found = repeats.over_seeds(copied, 2, MACHINE, Silent())
    other = Run(copied.path.with_name(f"{copied.path.name}-seed-1"))
    assert [row.run for row in found.rows] == [str(copied.path), str(other.path)]
    assert (other.recipe().seed, other.split()) == (1, copied.split())
    written = (other.path / "model.pt").stat().st_mtime_ns
    assert repeats.over_seeds(copied, 2, MACHINE, Silent()) == found
    assert (other.path / "model.pt").stat().st_mtime_ns == written
