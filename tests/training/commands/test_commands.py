import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from anther.errors import AntherError
from bundle.repository import Repository, open_bundle
from service.engines.precision import primary_on
from training.commands import summary
from training.commands.evaluate import evaluate
from training.commands.export import export
from training.commands.retrain import retrain
from training.commands.train import train
from training.config import Recipe
from training.errors import FlatFolder


def call(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", [train, evaluate, export, retrain])
def test_help_explains_every_option(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_every_recipe_field_is_an_option_with_its_default():
    options = {parameter.name: parameter for parameter in train.params}
    for field in dataclasses.fields(Recipe):
        assert options[field.name].default == field.default
        assert options[field.name].show_default


def test_the_commands_import_nothing_heavy():
    """`anther --help` must answer at once."""
    heavy = ("torch", "onnx", "rich", "numpy", "PIL")
    code = f"import sys, training.commands.train; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_retrain_goes_all_the_way(photos, recipe, backbone_file, tmp_path):
    fields = recipe(strategy="finetune", epochs=1).record()
    options = [part for name, value in fields.items() if type(value) is not bool
               for part in ("--" + name.replace("_", "-"), value)]  # fmt: skip
    result = call(
        retrain, "--data", photos, "--name", "colours", "--weights", backbone_file, *options, "--device", "cpu",
        "--workers", 0, "--runs", tmp_path / "runs", "--models", tmp_path / "models", "--export-precision", "fp16",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "top-1" in result.stdout
    assert "95 % interval" in result.stdout
    assert str(tmp_path / "models" / "colours" / "1") in result.stdout
    bundle = Repository(tmp_path / "models").open("colours", 1)
    assert bundle.manifest.provenance.recipe == {**fields, "lr": 0.001}, "0.0 left it open"
    assert bundle.manifest.model.precision == "fp16"


def test_train_prints_one_line_of_json_and_export_follows(photos, recipe, backbone_file, tmp_path):
    result = call(
        train, "--data", photos, "--name", "colours", "--weights", backbone_file, "--strategy", "head",
        "--split-seed", recipe().split_seed, "--resize", 40, "--crop", 32, "--device", "cpu",
        "--runs", tmp_path / "runs", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["bundle"] is None
    assert record["n"] == sum(map(sum, record["confusion"]))
    again = call(train, "--resume", record["run"], "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert f"anther export {record['run']}" in again.stdout
    out = tmp_path / "out"
    exported = call(export, record["run"], "--output", out, "--precision", "fp16", "--device", "cpu", "--json")
    assert open_bundle(out).manifest.model.precision == "fp16"
    assert set(json.loads(exported.stdout)["files"]) == {"model.onnx", "golden.npz", "report.html"}
    refused = call(export, record["run"], "--precision", "fp16", "--tf32", 0.05)
    assert refused.exit_code == 2
    assert "--tf32 is a way to compute in fp32" in refused.output


def test_a_gpu_may_round_products_where_export_says_how_much(finished, tmp_path):
    options = ("--output", tmp_path / "out", "--no-int8", "--tf32", 0.05, "--device", "cpu")
    assert call(export, finished.run.path, *options).exit_code == 0
    allowed = open_bundle(tmp_path / "out").manifest
    assert allowed.tolerances["CUDAExecutionProvider"] == {"fp32": 0.01, "tf32": 0.05}
    assert primary_on(allowed, "CUDAExecutionProvider") == "tf32"
    assert primary_on(allowed, "CPUExecutionProvider") == "fp32"
    assert primary_on(finished.bundle.manifest, "CUDAExecutionProvider") == "fp32"


def test_a_bundle_is_shown_with_what_to_do_next(finished, capsys):
    summary.show_bundle(finished.bundle.path, as_json=False)
    assert f"anther evaluate {finished.bundle.path}" in capsys.readouterr().out


def test_the_command_that_serves_a_new_version_answers_requests_that_name_no_model(
    finished, publish_bundle, capsys, tmp_path, monkeypatch
):
    def command_for(models):
        summary.show_run(finished.run, Repository(models).open("colours", 1), as_json=False)
        return capsys.readouterr().out.splitlines()[-1].removeprefix("next").strip()

    assert command_for(finished.models) == f"anther serve --models {finished.models}"
    shutil.copytree(finished.models, tmp_path / "models")
    publish_bundle(tmp_path / "models", "flowers")
    assert command_for(tmp_path / "models") == f"anther serve --models {tmp_path}/models --default-model colours"
    monkeypatch.chdir(tmp_path)
    assert command_for(Path("models")) == "anther serve --default-model colours"


def test_times_stay_with_their_unit(finished, capsys):
    summary.show_run(finished.run, finished.bundle, as_json=False)
    times = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("time"))
    assert "\N{NO-BREAK SPACE}s" in times
    assert " s" not in times


def test_evaluate_prints_the_promised_json(finished, photos):
    result = call(evaluate, finished.bundle.path, "--data", photos, "--json", "--workers", 1)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["n"] == 48
    low, high = record["top1_interval"]
    assert low <= record["top1"] <= high
    assert [row["label"] for row in record["per_class"]] == record["labels"] == ["blue", "green", "red"]
    assert sum(map(sum, record["confusion"])) == 48
    assert record["undecodable"] == []


def test_evaluate_shows_a_table_and_lists_what_it_could_not_read(finished, draw, tmp_path):
    draw(tmp_path, "red", 0)
    (tmp_path / "red" / "broken.png").write_bytes(b"x")
    result = call(evaluate, finished.run.path, "--data", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "precision" in result.stdout
    assert "not measured: red/broken.png" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data", "x"],
        ["--resume", "x", "--lr", "0.1"],
        ["--resume", "x", "--data", "y"],
        ["--data", "x", "--name", "y", "--strategy", "magic"],
        ["--data", "x", "--name", "y", "--workers", "-1"],
        ["--data", "x", "--name", "y", "--crop", "300"],
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    result = call(train, *arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr


def test_errors_reach_the_caller_as_they_are(tmp_path, photos):
    """The command line's entry point prints them in one line and exits with 1."""
    result = call(train, "--data", photos / "red", "--name", "x", "--weights", "none", "--runs", tmp_path / "runs")
    assert isinstance(result.exception, FlatFolder)
    assert isinstance(result.exception, AntherError)
    assert "\n" not in str(result.exception)
