import dataclasses
import json

import pytest
from click.testing import CliRunner

from bundle.errors import BundleCorrupt
from bundle.variant import Variant, VariantMetrics
from bundle.verdict import Parent, Verdict
from training.commands import contents, suspect_view
from training.commands.inspect import inspect
from training.commands.train import train
from training.errors import NoPhotos
from training.suspects.records import Copy, InspectedPhoto, LabelSuspect, Outlier, Suspects


def call(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_bundle_is_told_in_words_and_as_its_manifest(finished):
    result = call(inspect, finished.bundle.path)
    assert result.exit_code == 0, result.output
    manifest = finished.bundle.manifest
    for text in ("top-1", "risk-coverage area", "Brier", "before temperature scaling", "CPUExecutionProvider fp32"):
        assert text in result.stdout
    assert manifest.provenance.data_fingerprint in result.stdout
    record = json.loads(call(inspect, finished.bundle.path, "--json").stdout)
    assert record["labels"] == list(manifest.labels)


def test_what_was_added_to_a_bundle_later_is_told_where_it_is(finished):
    manifest = finished.bundle.manifest
    metrics = VariantMetrics(10, 0.9, (0.8, 1.0), 0.1, 0.02, 1.0)
    whole = dataclasses.replace(
        manifest,
        variants=(Variant("int8", "model.int8.onnx", 2_300_000, metrics, 1.9, 0.005),),
        files={**manifest.files, "model.int8.onnx": "0" * 64},
        gate=Verdict(True, ("It is better.",), (), {}),
        provenance=dataclasses.replace(manifest.provenance, parent=Parent("colours", 7, "0" * 64, None, None, None)),
    )
    rows = dict([*contents._model(whole), *contents._provenance(whole)])
    assert rows["int8"] == "2.3 MB, top-1 0.9000, 1.90 times as fast"
    assert (rows["gate"], rows["parent"]) == ("passed: It is better.", "colours/7")


def test_a_bundle_from_before_the_added_measures_is_told_without_them(capsys, finished):
    from training.commands import summary

    old = finished.bundle.manifest.metrics
    classes = [dataclasses.replace(row, recall_interval=None) for row in old.per_class]
    classes[2] = dataclasses.replace(classes[2], support=0)
    first = dataclasses.replace(
        old, top_k=None, macro_f1_interval=None, brier=None, reliability=(), uncalibrated=None, aurc=None,
        confident=None, per_class=tuple(classes),
    )  # fmt: skip
    summary.show_metrics(first, "old")
    said = capsys.readouterr().out
    assert "Brier" not in said
    assert "calibration error" in said


def test_a_changed_bundle_is_not_told(finished, tmp_path):
    import shutil

    shutil.copytree(finished.bundle.path, tmp_path / "1")
    (tmp_path / "1" / "model.onnx").write_bytes(b"other")
    assert isinstance(call(inspect, tmp_path / "1").exception, BundleCorrupt)


def test_a_run_is_inspected_and_the_page_is_left_in_it(finished, tmp_path):
    result = call(inspect, finished.run.path, "--output", tmp_path, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["photos"] == 48
    assert record["page"] == str(tmp_path / "suspects.html")
    assert (tmp_path / "suspects.json").exists()


def test_a_folder_is_inspected_and_what_is_left_out_is_said(photos, backbone_file, tmp_path):
    import shutil

    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "red" / "broken.png").write_bytes(b"x")
    result = call(
        inspect, folder, "--weights", backbone_file, "--runs", tmp_path / "runs", "--device", "cpu", "--folds", 3
    )
    assert result.exit_code == 0, result.output
    assert "1 files that cannot be decoded" in result.stderr
    assert (tmp_path / "runs" / "suspects" / "photos" / "suspects.html").exists()
    assert "photos  48" in result.stdout


def test_what_holds_no_photos_is_refused(tmp_path):
    assert isinstance(call(inspect, tmp_path).exception, NoPhotos)


def test_suspects_are_listed_with_what_is_dangerous(capsys, tmp_path):
    first, second = InspectedPhoto("a/1.jpg", "a", "train"), InspectedPhoto("b/2.jpg", "b", "test")
    found = Suspects("x", 9, (LabelSuspect(first, "b", 0.1, 0.8),) * 3, (Copy(first, second, 1.0, 0.9),), ())
    suspect_view.show(found, tmp_path / "suspects.html", 2, as_json=False)
    said = capsys.readouterr().out
    assert "the first 2 of 3" in said
    assert "two labels, two parts" in said
    assert "unlike all others: none" in said
    suspect_view.show(dataclasses.replace(found, outliers=(Outlier(first, 4.21),)), tmp_path, 2, as_json=False)
    assert "4.2" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--folds", "1"]])
def test_fewer_repetitions_than_make_sense_are_wrong_usage(wrong):
    assert call(train, "--data", "x", "--name", "y", *wrong).exit_code == 2


def test_train_repeats_and_tells_mean_and_spread(photos, recipe, backbone_file, tmp_path, monkeypatch):
    from training.evaluation import robustness

    monkeypatch.setattr(robustness, "CORRUPTIONS", {"blur": robustness.CORRUPTIONS["blur"]})
    result = call(
        train, "--data", photos, "--name", "colours", "--weights", backbone_file, "--strategy", "head",
        "--split-seed", recipe().split_seed, "--resize", 40, "--crop", 32, "--device", "cpu",
        "--runs", tmp_path / "runs", "--seeds", 2, "--folds", 2, "--corruptions", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert [row["name"] for row in record["seeds"]["rows"]] == ["seed 0", "seed 1"]
    assert len(record["folds"]["rows"]) == 2
    assert [row["corruption"] for row in record["corruptions"]] == ["blur"]
    again = call(train, "--resume", record["run"], "--seeds", 2, "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert "±" in again.stdout
    assert "points lost" in again.stdout
