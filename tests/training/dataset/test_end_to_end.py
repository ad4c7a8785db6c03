"""A table instead of a folder, and photos from the store instead of files, through a whole training."""

import shutil

import pytest
import torch
from click.testing import CliRunner

from training import pipeline
from training.commands.train import train
from training.config import Machine
from training.dataset.tables import Columns
from training.progress import Silent
from training.runs.records import TrainingRequest

MACHINE = Machine("cpu", 0)

pytestmark = pytest.mark.no_cover  # tracing doubles the time; other tests cover the same lines


def test_a_table_trains_the_same_model_as_its_folder(finished, photos, recipe, backbone_file, tmp_path):
    """Relative and absolute paths mixed; the run goes on with the table's own column names."""
    root = shutil.copytree(photos, tmp_path / "photos")
    rows = [
        (path if index % 2 else path.relative_to(root), path.parent.name)
        for index, path in enumerate(sorted(root.rglob("*.png")))
    ]
    table = root / "photos.tsv"
    table.write_text("\n".join(["file\tclass", *(f"{path}\t{label}" for path, label in rows)]))
    request = TrainingRequest(table, "colours", str(backbone_file), tmp_path / "runs", columns=Columns("file", "class"))
    run = pipeline.train(request, recipe(), MACHINE, Silent())
    table.unlink()  # the run knows what it needs
    assert run.split().fingerprint == finished.run.split().fingerprint
    assert run.evaluation().metrics == finished.run.evaluation().metrics
    assert pipeline.context_of(run, MACHINE).root == root
    expected = finished.run.weights()
    for name, tensor in run.weights().items():
        torch.testing.assert_close(tensor, expected[name])


def test_a_table_needs_its_columns_named_on_the_command_line(tmp_path, draw):
    draw(tmp_path, "red", 0)
    (tmp_path / "photos.csv").write_text("file,class\nred/000.png,red\n")
    options = ["--data", str(tmp_path / "photos.csv"), "--name", "x", "--weights", "none", "--runs", str(tmp_path)]
    refused = CliRunner().invoke(train, options)
    assert "no column 'path'" in str(refused.exception)
    refused = CliRunner().invoke(train, [*options, "--path-column", "file", "--label-column", "class"])
    assert "photos of one class only, 'red'" in str(refused.exception)


def test_stored_photos_train_the_same_model_as_files(photos, recipe, backbone_file, tmp_path):
    """They are as small as the photos, so that nothing is lost; two epochs, the second of which decodes nothing."""
    runs = []
    for name, stored_size in (("files", 0), ("stored", 40)):
        wanted = recipe(strategy="finetune", epochs=2, stored_size=stored_size)
        request = TrainingRequest(photos, name, str(backbone_file), tmp_path)
        runs.append(pipeline.train(request, wanted, MACHINE, Silent()))
    assert len(list((tmp_path / ".cache" / "decoded").rglob("*.rgb"))) == 1
    files, stored = (run.weights() for run in runs)
    for name, tensor in files.items():
        assert torch.equal(tensor, stored[name])
