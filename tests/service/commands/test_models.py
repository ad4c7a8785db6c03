"""`anther models`: what it shows is what is there, and what it changes is the policy that a server reads."""

import dataclasses
import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from anther import cli
from anther.errors import AntherError
from bundle.errors import BundleRefused, ModelNotFound, PolicyInvalid, VersionNotFound
from bundle.golden import Golden
from bundle.manifest import Manifest
from bundle.policy import ServingPolicy, Share, read_policy
from bundle.repository import Repository
from bundle.variant import VariantMetrics
from bundle.verdict import Parent, Verdict
from service.commands.catalogue import facts

Call = Callable[..., Result]


@pytest.fixture
def root(tmp_path: Path, publish_bundle) -> Path:
    """'flowers' 1 and 2, and 'trees' 1."""
    root = tmp_path / "models"
    publish_bundle(root, seed=1)
    publish_bundle(root, seed=2)
    publish_bundle(root, "trees", evidence=False)
    return root


@pytest.fixture
def call(root: Path) -> Call:
    """`call("list", "--json")` runs the command on the folder."""

    def run(command: str, *arguments: str) -> Result:
        return CliRunner().invoke(cli.cli, ["models", command, "--models", str(root), *arguments])

    return run


@pytest.fixture
def result_of(call: Call) -> Callable[..., Any]:
    """`result_of("pin", "flowers", "1")`: the JSON document that the command prints."""

    def run(*arguments: str) -> Any:
        result = call(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def policy(root: Path) -> Callable[[], ServingPolicy]:
    return lambda: read_policy(root, "flowers")


def error_of(result: Result) -> AntherError:
    """What `cli.main` makes one line and exit code 1 of."""
    assert isinstance(result.exception, AntherError), result.output
    assert result.stdout == ""
    return result.exception


def damage(root: Path, version: int) -> None:
    (root / "flowers" / str(version) / "report.html").write_text("other")


def refused(root: Path, version: int) -> None:
    """Whole and signed, but the golden pictures hold other logits than the model gives."""
    folder = root / "flowers" / str(version)
    golden = Golden.from_bytes((folder / "golden.npz").read_bytes())
    data = dataclasses.replace(golden, logits=golden.logits + np.float32(1)).to_bytes()
    (folder / "golden.npz").write_bytes(data)
    manifest = Manifest.from_json((folder / "manifest.json").read_text())
    files = {**manifest.files, "golden.npz": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())


def words(text: str) -> str:
    """Without what makes it a table."""
    return " ".join(text.split())


# list


def test_the_list_shows_every_version_with_what_it_is_worth(call: Call) -> None:
    lines = [words(line) for line in call("list").stdout.splitlines()]
    assert lines[0] == "version serves as top-1 (95 %) size created state"
    assert lines[1].startswith("flowers/2 stable 1.000 (0.900–1.000) ")
    assert lines[1].endswith("MB 2026-01-01 whole")
    assert lines[2].startswith("flowers/1 1.000")
    assert lines[3].startswith("trees/1 stable")


def test_the_list_for_programs_has_all_of_it(result_of, root: Path) -> None:
    flowers, trees = result_of("list")
    assert (flowers["model"], flowers["stable"], flowers["policy"]["versions"]) == ("flowers", 2, "latest")
    assert [version["version"] for version in flowers["versions"]] == [1, 2]
    size = sum(file.stat().st_size for file in (root / "flowers" / "2").iterdir())
    assert flowers["versions"][1] == {
        "version": 2,
        "roles": ["stable"],
        "state": "whole",
        "reason": "",
        "size_bytes": size,
        "created": "2026-01-01T00:00:00+00:00",
        "architecture": "colours",
        "precision": "fp32",
        "classes": 3,
        "top1": 1.0,
        "top1_interval": [0.9, 1.0],
        "photos": 30,
    }
    assert trees["versions"][0]["roles"] == ["stable"]


def test_a_damaged_version_is_shown_with_the_reason_and_is_not_stable(call: Call, result_of, root: Path) -> None:
    damage(root, 2)
    (flowers, _) = result_of("list")
    assert flowers["stable"] == 1
    assert flowers["versions"][1]["state"] == "damaged"
    assert "report.html: SHA-256" in flowers["versions"][1]["reason"]
    assert "top1" not in flowers["versions"][1]
    assert "flowers/2 is damaged: " in call("list").stdout


@pytest.mark.parametrize(
    ("policy", "roles"),
    [
        (ServingPolicy(versions="pinned", stable=1), [["stable"], [], []]),
        (ServingPolicy(canary=Share(3, 0.1)), [[], ["stable"], ["canary 0.1"]]),
        (ServingPolicy(canary=Share(3, 0.1), shadow=Share(1, 1.0)), [["shadow 1"], ["stable"], ["canary 0.1"]]),
        (ServingPolicy(versions="all", stable=2), [["by number"], ["stable"], ["by number"]]),
        (ServingPolicy(loaded=False), [[], [], []]),
    ],
)
def test_roles_are_those_of_the_policy(result_of, root: Path, publish_bundle, policy, roles) -> None:
    publish_bundle(root)
    write(root, policy)
    assert [version["roles"] for version in result_of("list")[0]["versions"]] == roles


def write(root: Path, policy: ServingPolicy) -> None:
    (root / "flowers" / "serving.json").write_text(json.dumps(dataclasses.asdict(policy)))


def test_a_damaged_policy_is_told_below_the_table(call: Call, result_of, root: Path) -> None:
    (root / "flowers" / "serving.json").write_text("{")
    assert "serving.json is no serving policy" in call("list").stdout
    assert "is no serving policy" in result_of("list")[0]["policy_error"]


def deny(monkeypatch, folder: Path) -> None:
    """As for another user, also where root runs the tests."""
    iterdir = Path.iterdir

    def checked(path: Path) -> Iterator[Path]:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", checked)


def test_a_model_that_cannot_be_read_is_told_beside_the_others(call, result_of, root: Path, monkeypatch) -> None:
    deny(monkeypatch, root / "flowers")
    flowers, trees = result_of("list")
    assert (flowers["stable"], flowers["versions"], trees["stable"]) == (0, [], 1)
    assert "flowers: unreadable (Permission denied)" in flowers["policy_error"]
    assert "flowers: unreadable (Permission denied)" in call("list").stdout
    for command in (["show"], ["verify"], ["pin", "1"], ["rollback"], ["unload"]):
        error = error_of(call(command[0], "flowers", *command[1:]))
        assert "flowers: unreadable (Permission denied)" in str(error)


def test_a_version_that_cannot_be_read_is_told_beside_the_others(result_of, root: Path, monkeypatch) -> None:
    deny(monkeypatch, root / "flowers" / "2")
    first, second = result_of("list")[0]["versions"]
    assert (first["roles"], second["state"], second["size_bytes"]) == (["stable"], "damaged", 0)
    assert "Permission denied" in second["reason"]


def test_a_model_out_of_service_is_told_with_the_way_back(call: Call, root: Path) -> None:
    write(root, ServingPolicy(loaded=False))
    assert "flowers is out of service; `anther models load flowers`" in call("list").stdout


def test_an_empty_folder_is_told(call: Call, root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()
    assert call("list").stdout == f"no models in {root}; `anther retrain` makes one\n"
    assert call("list", "--json").stdout == "[]\n"


def test_the_list_fits_a_terminal_of_80_columns(root: Path, publish_bundle) -> None:
    publish_bundle(root, "flowers-of-the-whole-alpine-region")
    write, read = pty.openpty()[::-1]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    command = [sys.executable, "-m", "anther", "models", "list", "--models", root]
    subprocess.run(command, stdout=write, env=environment, check=True)
    os.close(write)
    lines = os.read(read, 4096).decode().splitlines()
    os.close(read)
    assert "flowers-of-the-whole-alpine-region/1" in lines
    assert max(map(len, lines)) <= 80


# show


def test_show_tells_what_the_manifest_says(call: Call) -> None:
    shown = words(call("show", "flowers", "1").stdout)
    for expected in (
        "flowers/1",
        "accuracy 1.000 (0.900–1.000) on 30 test photos, macro F1 1.000",
        "classes daisy (F1 1.00 of 10), tulips",
        "confident from probability 0.70 on: 90.0% of photos, 100.0% of them right",
        "model colours, 12 parameters, fp32, with evidence maps",
        "short side to 36, centre 32×32 pixels",
        "CPUExecutionProvider fp32 0.0001; CUDAExecutionProvider fp32 0.01",
        "photos train 80, validation 10, test 30",
        "report.html, 0.00 MB, SHA-256 ",
    ):
        assert expected in shown
    assert "commit" not in shown  # it has none
    assert "without evidence maps" in call("show", "trees").stdout


def test_the_facts_name_parent_gate_and_other_precisions(root: Path, publish_bundle) -> None:
    plain = Repository(root).open("flowers", 1).manifest
    assert not {"follows", "gate", "int8"} & set(facts(plain))
    measured = VariantMetrics(30, 0.9, (0.74, 0.97), 0.3, 0.1, agreement=0.95)
    version = publish_bundle(root, int8=measured)
    manifest = Repository(root).open("flowers", version).manifest
    parent = Parent("flowers", 7, "0" * 64, None, 3, 0)
    judged = dataclasses.replace(
        manifest,
        provenance=dataclasses.replace(manifest.provenance, parent=parent),
        gate=Verdict(True, ("no worse than flowers/7",), ("new, so not compared: iris",), {}),
    )
    shown = facts(judged)
    assert shown["follows"] == "flowers/7"
    assert shown["gate"] == "no worse than flowers/7; new, so not compared: iris"
    assert shown["int8"].startswith("top-1 0.900, 95.0% the same answers, ")


def test_show_takes_the_newest_version_where_none_is_named(result_of) -> None:
    record = result_of("show", "flowers")
    assert (record["name"], record["version"], record["labels"]) == ("flowers", 2, ["daisy", "tulips", "roses"])


def test_what_is_not_there_cannot_be_shown(call: Call) -> None:
    assert isinstance(error_of(call("show", "weeds")), ModelNotFound)
    assert isinstance(error_of(call("show", "flowers", "3")), VersionNotFound)


# verify


def test_a_sound_version_is_told_with_its_largest_difference(call: Call, result_of) -> None:
    shown = call("verify", "flowers", "1").stdout
    assert shown.startswith("flowers/1 is sound: every file as published, golden pictures equal\n")
    assert "CPUExecutionProvider in fp32\nlargest logit difference  " in shown
    record = result_of("verify", "flowers")
    assert (record["model"], record["version"], record["ok"]) == ("flowers", 2, True)
    assert 0 <= record["largest_logit_difference"] <= 1e-4
    assert record["batch_sizes"] == [1]


def test_a_version_that_a_server_would_refuse_fails(call: Call, root: Path) -> None:
    damage(root, 1)
    assert isinstance(error_of(call("verify", "flowers", "1")), BundleRefused)
    result = call("verify", "flowers", "1", "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert (record["ok"], record["version"]) == (False, 1)
    assert "report.html" in record["reason"]


INT8 = VariantMetrics(30, 1.0, (0.9, 1.0), 0.3, 0.1, agreement=1.0)


def test_a_version_is_proven_in_the_precision_that_the_server_has(call: Call, result_of, root, publish_bundle) -> None:
    publish_bundle(root, seed=3, int8=INT8)
    assert "CPUExecutionProvider in int8\n" in call("verify", "flowers", "--precision", "int8").stdout
    assert result_of("verify", "flowers", "--precision", "auto")["precision"] == "int8"
    assert result_of("verify", "flowers")["precision"] == "fp32"
    assert result_of("verify", "flowers", "2", "--precision", "auto")["precision"] == "fp32"


@pytest.mark.parametrize(
    "command",
    [["verify", "flowers", "2"], ["pin", "flowers", "2"], ["promote", "flowers", "2"],
     ["promote", "flowers", "2", "--canary", "0.5"]],
)  # fmt: skip
def test_a_version_without_int8_is_refused_where_a_server_of_int8_would_do_so(call: Call, policy, command) -> None:
    assert "it holds no int8 model" in str(error_of(call(*command, "--precision", "int8")))
    assert policy() == ServingPolicy()
    assert call(*command).exit_code == 0


def test_rollback_passes_over_versions_without_int8_on_behalf_of_a_server_of_int8(
    call: Call, root: Path, policy, publish_bundle
) -> None:
    publish_bundle(root, seed=3, int8=INT8)
    publish_bundle(root, seed=4)
    publish_bundle(root, seed=5, int8=INT8)
    assert "version 4 is passed over" in call("rollback", "flowers", "--precision", "int8").stderr
    assert policy().stable == 3


def test_the_precision_comes_from_the_environment_as_a_servers_does(root: Path) -> None:
    command = ["models", "verify", "flowers", "--models", str(root)]
    result = CliRunner(env={"ANTHER_PRECISION": "int8"}).invoke(cli.cli, command)
    assert "it holds no int8 model" in str(error_of(result))
    assert CliRunner(env={"ANTHER_PRECISION": "int8"}).invoke(cli.cli, [*command, "--precision", "fp32"]).stdout


def test_what_is_not_there_cannot_be_verified(call: Call) -> None:
    assert isinstance(error_of(call("verify", "weeds")), ModelNotFound)
    assert isinstance(error_of(call("verify", "flowers", "3", "--json")), VersionNotFound)


# pin


def test_pin_serves_exactly_that_version(call: Call, policy) -> None:
    shown = call("pin", "flowers", "1").stdout
    assert policy() == ServingPolicy(versions="pinned", stable=1, previous=(2,))
    assert shown == (
        "flowers: version 1 is stable (pinned).\n"
        "A running server follows at its next rescan (--watch-s), or at once on SIGHUP.\n"
    )


def test_pin_latest_follows_publications_again(result_of, policy) -> None:
    result_of("pin", "flowers", "1")
    assert result_of("pin", "flowers", "latest")["stable"] == 2
    assert (policy().versions, policy().stable) == ("latest", 0)


def test_pin_all_answers_by_number(call: Call, policy) -> None:
    assert "version 2 is stable (all others answer by number)" in call("pin", "flowers", "all").stdout
    assert policy().versions == "all"


@pytest.mark.parametrize("command", [["pin", "flowers", "1"], ["promote", "flowers", "1", "--canary", "0.5"]])
def test_a_bad_version_is_pinned_and_promoted_only_on_request(call: Call, root: Path, policy, command) -> None:
    damage(root, 1)
    assert isinstance(error_of(call(*command)), BundleRefused)
    assert policy() == ServingPolicy()
    assert call(*command, "--no-verify").exit_code == 0
    assert policy() != ServingPolicy()


def test_a_version_that_does_not_exist_cannot_be_pinned(call: Call) -> None:
    for extra in ([], ["--no-verify"]):
        assert isinstance(error_of(call("pin", "flowers", "3", *extra)), VersionNotFound)


def test_an_unknown_model_cannot_be_pinned(call: Call) -> None:
    assert isinstance(error_of(call("pin", "weeds", "latest")), ModelNotFound)


def test_a_damaged_policy_is_not_overwritten(call: Call, root: Path) -> None:
    (root / "flowers" / "serving.json").write_text("{")
    assert isinstance(error_of(call("pin", "flowers", "1")), PolicyInvalid)
    assert (root / "flowers" / "serving.json").read_text() == "{"


def test_from_a_damaged_policy_nothing_is_rolled_back(call: Call, root: Path) -> None:
    """Also where the default policy would have nothing to go back to."""
    refused(root, 1)
    (root / "flowers" / "serving.json").write_text("{")
    assert isinstance(error_of(call("rollback", "flowers")), PolicyInvalid)


# promote, rollback


def test_a_canary_is_tried_enlarged_and_promoted(call: Call, policy) -> None:
    call("pin", "flowers", "1")
    shown = call("promote", "flowers", "2", "--canary", "0.1").stdout
    assert "version 1 is stable (pinned); version 2 answers 0.1 of the requests." in shown
    assert policy().canary == Share(2, 0.1)
    call("promote", "flowers", "--canary", "0.5")
    assert policy().canary == Share(2, 0.5)
    call("promote", "flowers")
    assert (policy().stable, policy().canary, policy().previous) == (2, None, (2, 1))


def test_a_shadow_is_tried_and_ended(call: Call, policy) -> None:
    call("pin", "flowers", "1")
    shown = call("promote", "flowers", "2", "--shadow", "1").stdout
    assert "version 2 computes copies of 1 of the requests" in shown
    assert policy().shadow == Share(2, 1.0)
    call("promote", "flowers", "--shadow", "0")
    assert policy().shadow is None


def test_a_canary_is_ended_by_a_share_of_nothing(call: Call, root: Path, policy) -> None:
    """Also one that cannot be proven any more."""
    call("pin", "flowers", "1")
    call("promote", "flowers", "2", "--canary", "0.1")
    damage(root, 2)
    assert call("promote", "flowers", "--canary", "0").exit_code == 0
    assert policy().canary is None


def test_rollback_goes_back_to_what_was_stable_before(result_of, policy) -> None:
    result_of("pin", "flowers", "1")
    result_of("promote", "flowers", "2")
    assert result_of("rollback", "flowers")["stable"] == 1


def test_rollback_from_the_latest_goes_to_the_one_before_it(result_of, policy) -> None:
    assert result_of("rollback", "flowers")["stable"] == 1
    assert policy().versions == "pinned"


def test_rollback_needs_an_earlier_version(call: Call) -> None:
    assert str(error_of(call("rollback", "trees"))) == (
        "trees has no earlier version that a server would take; name a newer one (`anther models pin trees VERSION`), "
        "publish one (`anther retrain`), or end the service (`anther models unload trees`)"
    )


def test_rollback_leaves_the_version_that_answers_where_the_newest_is_refused(call, root, policy, publish_bundle):
    """To pin the one that answers already would change nothing."""
    publish_bundle(root, seed=3)
    refused(root, 3)
    assert "version 1 is stable (pinned)" in call("rollback", "flowers").stdout
    assert policy() == ServingPolicy(versions="pinned", stable=1)


def test_what_a_server_refuses_is_not_remembered_as_stable(call, root: Path, policy, publish_bundle) -> None:
    publish_bundle(root, seed=3)
    refused(root, 2)
    call("promote", "flowers", "3", "--canary", "0.5")
    call("promote", "flowers")
    assert (policy().stable, policy().previous) == (3, (1,))
    assert "version 1 is stable" in call("rollback", "flowers").stdout


def test_rollback_passes_over_what_a_server_would_refuse_and_says_so(call, root, policy, publish_bundle) -> None:
    publish_bundle(root, seed=3)
    refused(root, 2)
    write(root, ServingPolicy(versions="pinned", stable=3, previous=(1, 2)))
    result = call("rollback", "flowers")
    assert result.exit_code == 0
    assert result.stderr.startswith("version 2 is passed over, as a server would refuse it: golden picture ")
    assert policy() == ServingPolicy(versions="pinned", stable=1)


def test_rollback_goes_beyond_what_was_stable_where_all_of_that_is_refused(call, root, policy, publish_bundle) -> None:
    publish_bundle(root, seed=3)
    refused(root, 2)
    write(root, ServingPolicy(versions="pinned", stable=3, previous=(2,)))
    call("rollback", "flowers")
    assert policy() == ServingPolicy(versions="pinned", stable=1)


def test_rollback_changes_nothing_where_every_earlier_version_is_refused(call: Call, root: Path, policy) -> None:
    refused(root, 1)
    error = error_of(call("rollback", "flowers"))
    assert "flowers has no earlier version that a server would take; name a newer one" in str(error)
    assert policy() == ServingPolicy()


def test_rollback_leaves_what_stands_in_for_a_pinned_version_that_is_refused(call, root, policy, publish_bundle):
    publish_bundle(root, seed=3)
    refused(root, 3)
    write(root, ServingPolicy(versions="pinned", stable=3, previous=(1, 2)))
    call("rollback", "flowers")
    assert policy() == ServingPolicy(versions="pinned", stable=1)


def test_rollback_without_proof_looks_at_files_alone(call: Call, root: Path, policy, publish_bundle) -> None:
    publish_bundle(root, seed=3)
    refused(root, 2)
    assert call("rollback", "flowers", "--no-verify").exit_code == 0
    assert policy().stable == 2
    damage(root, 1)
    assert isinstance(error_of(call("rollback", "flowers", "--no-verify")), BundleRefused)


def test_a_pinned_version_that_was_deleted_is_rolled_back_from(call: Call, root: Path, policy) -> None:
    write(root, ServingPolicy(versions="pinned", stable=3, previous=(1, 2)))
    call("rollback", "flowers")
    assert policy().stable == 1


def test_the_version_that_is_told_as_stable_is_one_that_a_server_would_take(call: Call, root: Path) -> None:
    refused(root, 2)
    assert "version 1 is stable (the latest)" in call("promote", "flowers", "1", "--canary", "0.5").stdout


def test_where_every_version_is_damaged_none_is_told_as_stable(call: Call, root: Path) -> None:
    damage(root, 1)
    damage(root, 2)
    assert "flowers: every version would be refused." in call("pin", "flowers", "latest").stdout


# unload, load


def test_a_model_is_taken_out_of_service_and_brought_back(call: Call, policy) -> None:
    assert call("unload", "flowers").stdout.startswith("flowers: out of service.\nA running server")
    assert policy().loaded is False
    assert "version 2 is stable (the latest)" in call("load", "flowers").stdout
    assert policy() == ServingPolicy()


# Usage


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show"], "Missing argument 'NAME'"),
        (["show", "flowers", "0"], "0 is not in the range x>=1"),
        (["pin", "flowers", "newest"], "'newest' is not a valid integer"),
        (["pin", "flowers", "-1"], "No such option"),
        (["promote", "flowers", "2", "--canary", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["promote", "flowers", "2", "--canary", "0.1", "--shadow", "0.1"], "give one of --canary and --shadow"),
        (["promote", "flowers"], "flowers has no canary; name the VERSION that is meant"),
        (["promote", "flowers", "--shadow", "0.5"], "flowers has no shadow"),
        (["verify", "flowers", "--device", "tpu"], "'tpu' is not one of"),
        (["rollback", "flowers", "--precision", "fp8"], "'fp8' is not one of"),
    ],
)
def test_wrong_usage_is_exit_code_2(call: Call, arguments: list[str], expected: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.cli, ["models", "list", "--models", str(tmp_path / "nothing")])
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_the_folder_comes_from_the_environment_too(root: Path) -> None:
    result = CliRunner().invoke(cli.cli, ["models", "list", "--json"], env={"ANTHER_MODELS": str(root)})
    assert [entry["model"] for entry in json.loads(result.stdout)] == ["flowers", "trees"]


@pytest.mark.parametrize("command", ["list", "show", "verify", "pin", "promote", "rollback", "unload", "load"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(cli.cli, ["models", command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout
