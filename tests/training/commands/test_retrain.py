import dataclasses
import json
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bundle.manifest import Manifest
from bundle.policy import edit_policy
from bundle.repository import MANIFEST
from training.commands.release_options import release_of, release_options
from training.commands.retrain import retrain
from training.errors import GateRefused
from training.publishing import unfinished
from training.publishing.gate_policy import GatePolicy
from training.publishing.release import Release
from training.runs.run import Run

BEFORE = Release(Path("/served/models"), GatePolicy(max_loss=0.3), "fp16")


def call(*arguments):
    return CliRunner().invoke(retrain, [str(argument) for argument in arguments])


def said(*arguments, before=None):
    """The release that these options make."""
    found = []

    @click.command()
    @release_options
    @click.pass_context
    def command(context, **options):
        found.append(release_of(context, options, before))

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return found[0]


def test_every_field_of_the_gates_policy_is_an_option_with_its_default():
    options = {parameter.name: parameter for parameter in retrain.params}
    for field in dataclasses.fields(GatePolicy):
        assert options[field.name].default == field.default
    assert said() == Release(Path("models"))


def test_options_make_the_release():
    found = said("--models", "m", "--max-loss", "0.1", "--require-better", "--export-precision", "fp16")
    assert found == Release(Path("m"), GatePolicy(max_loss=0.1, require_better=True), "fp16")
    assert said("--no-gate").gate is None


def test_a_resumed_run_keeps_what_it_was_asked_for_but_for_what_is_said_now():
    assert said(before=BEFORE) == BEFORE
    assert said("--max-growth", "9", before=BEFORE).gate == GatePolicy(max_loss=0.3, max_growth=9)
    assert said("--no-gate", before=BEFORE) == dataclasses.replace(BEFORE, gate=None)
    ungated = dataclasses.replace(BEFORE, gate=None)
    assert said(before=ungated) == ungated
    assert said("--gate", before=ungated).gate == GatePolicy()
    assert said("--max-loss", "0.1", before=ungated).gate == GatePolicy(max_loss=0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-loss", "2"],
        ["--max-slowdown", "-1"],
        ["--watch", "--resume", "x"],
        ["--watch", "--data", "x", "--name", "y", "--json"],
        ["--watch", "--data", "x", "--name", "y", "--fresh"],
        ["--watch", "--data", "absent", "--name", "y"],
        ["--watch", "--data", "x", "--name", "y", "--min-new", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, tmp_path):
    start = [] if "--data" in arguments or "--resume" in arguments else ["--data", tmp_path, "--name", "x"]
    result = call(*start, *arguments)
    assert result.exit_code == 2, result.output
    assert "Error" in result.stderr


@pytest.fixture
def trained(finished, tmp_path):
    """A copy of the finished run that is not published yet, with a folder of models of its own."""
    run = Run(tmp_path / "runs" / "colours" / "copy")
    shutil.copytree(finished.run.path, run.path)
    for record in ("published.json", "gate.json"):
        (run.path / record).unlink()
    unfinished.note(run, Release(tmp_path / "models"))
    return run


def of_another_training(run):
    """Else it is the run that the version in service came from."""
    source = json.loads((run.path / "source.json").read_text())
    (run.path / "source.json").write_text(json.dumps({**source, "run": "another"}))
    path = run.path / "bundle" / MANIFEST
    manifest = Manifest.from_json(path.read_text())
    provenance = dataclasses.replace(manifest.provenance, run="another")
    path.write_text(dataclasses.replace(manifest, provenance=provenance).to_json())


def test_a_resumed_run_is_published_where_it_was_to_go_and_json_says_all(trained, tmp_path):
    result = call("--resume", trained.path, "--device", "cpu", "--workers", 1, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["version"], record["bundle"]) == (1, str(tmp_path / "models" / "colours" / "1"))
    assert record["gate"]["reasons"] == ["there is no version that it could be worse than"]
    assert record["gate"]["policy"] == GatePolicy().record()


def test_a_pinned_version_goes_on_serving_and_that_is_said(trained, finished, tmp_path):
    shutil.copytree(finished.models, tmp_path / "models")
    edit_policy(tmp_path / "models", "colours", lambda policy: policy.pinned_to(1, 1))
    of_another_training(trained)
    result = call("--resume", trained.path, "--device", "cpu", "--max-slowdown", 50)
    assert result.exit_code == 0, result.output
    assert "published as version 2; version 1 is pinned and goes on serving" in result.stdout


def test_a_refusal_reaches_the_caller_and_prints_no_result(trained, finished, tmp_path):
    shutil.copytree(finished.models, tmp_path / "models")
    of_another_training(trained)
    result = call("--resume", trained.path, "--device", "cpu", "--require-better")
    assert isinstance(result.exception, GateRefused)
    assert "not significantly more accurate" in str(result.exception)
    assert result.stdout == ""
