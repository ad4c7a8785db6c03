import json
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

from training.commands.compare import compare
from training.errors import NothingCompared, RunUnusable, WeightsUnusable
from training.learning import distributed
from training.learning.distributed import World


def call(*arguments):
    return CliRunner().invoke(compare, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def start(photos, recipe, backbone_file):
    return [
        "--data", photos, "--name", "colours", "--weights", backbone_file, "--split-seed", recipe().split_seed,
        "--resize", 40, "--crop", 32, "--train-size", 32, "--batch-size", 8, "--epochs", 1, "--device", "cpu",
        "--workers", 0, "--precision", "fp32", "--mixup", 0,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def compared(start, tmp_path_factory):
    """Two strategies, and one on a network that the weights do not fit. Read only."""
    runs = tmp_path_factory.mktemp("compared")
    result = call(*start, "--runs", runs, "--strategies", "head,scratch", "--backbones", "mobilenet_v2,resnet18")
    assert result.exit_code == 0, result.output
    (folder,) = (runs / "colours").glob("compare-*")
    return result, folder


def test_every_candidate_has_a_line_and_a_failure_does_not_lose_the_others(compared):
    result, folder = compared
    record = json.loads((folder / "compare.json").read_text())
    names = [(row["candidate"]["backbone"], row["candidate"]["strategy"]) for row in record["rows"]]
    assert names == [(net, way) for net in ("mobilenet_v2", "resnet18") for way in ("head", "scratch")]
    head, scratch, failed, other = record["rows"]
    assert failed["result"] is None
    assert "resnet18" in failed["failure"]
    assert head["result"]["trainable"] == 1280 * 3 + 3
    assert scratch["result"]["trainable"] == scratch["result"]["parameters"] == head["result"]["parameters"]
    assert other["result"]["onnx_bytes"] > 40e6 > scratch["result"]["onnx_bytes"] > 8e6
    low, high = head["result"]["top1_interval"]
    assert low <= head["result"]["top1"] <= high
    assert record["best"] == "mobilenet_v2-head"
    assert "resnet18-head failed" in result.stderr
    assert "mobilenet_v2" in result.stdout
    assert f"anther train --resume {folder / 'mobilenet_v2-head'}" in result.stdout


def test_candidates_share_one_split_and_none_has_looked_at_its_test_part(compared):
    _, folder = compared
    splits = {path.read_bytes() for path in folder.glob("**/split.json")}
    assert len(splits) == 1
    assert len(list(folder.glob("**/split.json"))) == 5
    assert not list(folder.glob("**/evaluation.json"))


def test_table_and_plot_are_files_of_their_own(compared):
    _, folder = compared
    page = (folder / "compare.md").read_text()
    assert page.count("| mobilenet_v2 |") == 2
    assert "- resnet18-head failed: " in page
    root = ET.parse(folder / "compare.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{space}circle")) == 3
    assert "resnet18 head" in [text.text for text in root.findall(f".//{space}text")]


def test_resume_takes_what_is_done_and_tries_again_what_failed(compared, tmp_path):
    _, folder = compared
    before = json.loads((folder / "compare.json").read_text())
    model = (folder / "mobilenet_v2-head" / "model.pt").stat().st_mtime_ns
    again = call("--resume", folder, "--device", "cpu", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == before
    assert again.stdout.count("\n") == 1
    assert (folder / "mobilenet_v2-head" / "model.pt").stat().st_mtime_ns == model


def test_where_nothing_can_be_trained_the_command_fails_with_the_reason(start, tmp_path):
    result = call(*start, "--runs", tmp_path, "--strategies", "head", "--backbones", "small_cnn")
    assert isinstance(result.exception, NothingCompared)
    assert "small_cnn" in str(result.exception)


def test_a_failure_ends_several_processes_for_the_others_wait_in_its_training(start, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: World(rank=0, size=2))
    result = call(*start, "--runs", tmp_path, "--strategies", "head,scratch", "--backbones", "small_cnn")
    assert isinstance(result.exception, WeightsUnusable)
    assert "failed" not in result.stderr


def test_an_unforeseen_error_of_one_candidate_is_listed_too(start, compared, tmp_path):
    """A folder where one of the run's files should go: not an error of ours, and no reason to lose the rest."""
    _, folder = compared
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("plan.json", "recipe.json", "source.json", "check.json", "photos.jsonl", "split.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "mobilenet_v2-head" / "source.json").mkdir(parents=True)
    for other in ("mobilenet_v2-scratch", "resnet18-scratch"):
        (copy / other).mkdir()
        (copy / other / "result.json").write_bytes((folder / other / "result.json").read_bytes())
    result = call("--resume", copy, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert rows[0]["failure"].startswith("IsADirectoryError")
    assert rows[1]["result"] is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--data and --name are needed"),
        (("--strategies", "head,guess"), "'guess' is none of"),
        (("--resume", "x", "--strategies", "head"), "--strategies cannot be given with --resume"),
        (("--resume", "x", "--epochs", "3"), "--epochs cannot be given with --resume"),
        (("--strategy", "head"), "--strategy"),
    ],
)
def test_wrong_usage_is_said(arguments, said):
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_folder_that_is_no_comparison_is_refused(finished):
    result = call("--resume", finished.run.path, "--device", "cpu")
    assert isinstance(result.exception, NothingCompared | RunUnusable)
    assert "it is no comparison" in str(result.exception)
