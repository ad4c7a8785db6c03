"""The command `classify`: which photos it asks for, what it prints and writes, and how it goes on and fails."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from anther import CallFailed, Client
from anther.commands import classify as classify_cli
from anther.results.errors import ModelLeft, OutputBusy, OutputForeign, OutputOfAnotherModel
from anther.results.formats import COLUMNS
from anther.results.screen import Screen
from bundle.errors import VersionNotFound

PATIENCE_S = 60


@pytest.fixture
def classify(start_edge):
    """`classify(*args)` against a running server."""
    target = f"127.0.0.1:{start_edge().port}"
    return lambda *arguments, **options: CliRunner(**options).invoke(
        classify_cli.classify, ["--target", target, *map(str, arguments)]
    )


@pytest.fixture
def folder(tmp_path: Path, pictures) -> Path:
    """Three pictures among other things."""
    root = tmp_path / "photos"
    for name, label in {"b/red.PNG": "daisy", "a/green.jpeg": "tulips", "c.tif": "roses"}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[label])
    (root / "notes.txt").write_text("no picture")
    (root / "a" / "album.jpg").mkdir()
    return root


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_folder_is_walked_for_its_pictures(classify, folder: Path) -> None:
    result = classify(folder, "--json")
    assert result.exit_code == 0
    assert {line["photo"]: line["predictions"][0]["label"] for line in lines(result)} == {
        str(folder / "a/green.jpeg"): "tulips",
        str(folder / "b/red.PNG"): "daisy",
        str(folder / "c.tif"): "roses",
    }


def test_a_pipe_in_a_folder_holds_nothing_up(classify, folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    result = classify(folder)
    assert result.exit_code == 0
    assert "3 of 3 answered" in result.stdout


def test_the_table_is_in_the_order_of_the_names(classify, folder: Path) -> None:
    rows = classify(folder).stdout.splitlines()[1:4]
    assert [row.split()[1] for row in rows] == ["tulips", "daisy", "roses"]


def test_an_unsure_answer_stands_beside_the_models_threshold(classify, tmp_path: Path, make_picture) -> None:
    path = tmp_path / "grey.png"
    path.write_bytes(make_picture((128, 128, 128)))
    _, row, legend, *_ = classify(path).stdout.splitlines()
    assert "(unsure)" in row
    assert " < 0.700" in row
    assert legend == "(unsure): under the threshold of flowers/1, 0.700"


def test_a_version_that_has_left_since_is_unsure_without_a_threshold(closed_port: int) -> None:
    with Client(f"127.0.0.1:{closed_port}") as client:
        assert classify_cli._threshold_of(client)("flowers", 1) is None


def test_a_named_file_is_taken_whatever_its_name(classify, tmp_path: Path, pictures) -> None:
    path = tmp_path / "photo"
    path.write_bytes(pictures["daisy"])
    assert lines(classify(path, "--json"))[0]["predictions"][0]["label"] == "daisy"


def test_one_failure_gives_exit_code_1_and_all_others_are_answered(classify, folder: Path) -> None:
    (folder / "a" / "broken.jpg").write_bytes(b"junk")
    result = classify(folder, folder / "missing.jpg", "--json")
    assert result.exit_code == 1
    reasons = {Path(line["photo"]).name: line["error"] and line["error"]["reason"] for line in lines(result)}
    assert reasons == {
        "broken.jpg": "IMAGE_FORMAT_REFUSED",
        "green.jpeg": None,
        "red.PNG": None,
        "c.tif": None,
        "missing.jpg": "FILE_UNREADABLE",
    }
    table = classify(folder)
    assert table.exit_code == 1
    assert "3 of 4 answered by flowers/1 on CPUExecutionProvider" in table.stdout


def test_names_that_are_no_utf8_are_answered(classify, folder: Path, pictures) -> None:
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    (folder / name).write_bytes(pictures["daisy"])
    result = classify(folder, "--json")
    assert result.exit_code == 0
    assert str(folder / name) in [line["photo"] for line in lines(result)]
    assert classify(folder).exit_code == 0


def test_top_model_and_version_are_passed_on(classify, folder: Path) -> None:
    (line,) = lines(classify(folder / "c.tif", "--json", "--top", "2", "--model", "flowers", "--version", "1"))
    assert (line["model"], line["version"], len(line["predictions"])) == ("flowers", 1, 2)
    (line,) = lines(classify(folder / "c.tif", "--json", "--version", "3"))
    assert line["error"]["reason"] == "VERSION_NOT_FOUND"


def test_a_folder_without_pictures_is_wrong_usage(classify, tmp_path: Path) -> None:
    result = classify(tmp_path)
    assert result.exit_code == 2
    assert "no pictures (.bmp, .gif," in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["--top", "0", "x"], ["--version", "-1", "x"], ["--version", str(2**63), "x"], ["--top", str(2**31), "x"],
     ["--timeout-s", "0", "x"], ["--nope", "x"]],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(classify_cli.classify, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_the_target_may_come_from_the_environment(start_edge, folder: Path) -> None:
    edge = start_edge()
    result = CliRunner(env={"ANTHER_TARGET": f"127.0.0.1:{edge.port}"}).invoke(classify_cli.classify, [str(folder)])
    assert result.exit_code == 0


def test_every_option_has_a_help_text_and_shows_its_default() -> None:
    for parameter in classify_cli.classify.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.show_default or parameter.is_flag, parameter.name
    result = CliRunner().invoke(classify_cli.classify, ["--help"])
    assert result.exit_code == 0
    for column in (*COLUMNS, "path"):
        assert column in result.stdout


def test_a_label_is_passed_on(classify, folder: Path) -> None:
    assert classify(folder, "--label", "stable").exit_code == 0
    result = classify(folder / "c.tif", "--label", "canary", "--json")
    assert lines(result)[0]["error"]["reason"] == "CANARY_NOT_FOUND"


def test_without_a_server_there_is_one_error(folder: Path) -> None:
    result = CliRunner().invoke(classify_cli.classify, ["--target", "127.0.0.1:1", str(folder)])
    assert isinstance(result.exception, CallFailed)
    assert "no server answers at 127.0.0.1:1" in str(result.exception)
    assert result.stdout == ""


def test_a_target_without_a_port_is_wrong_usage(folder: Path) -> None:
    result = CliRunner().invoke(classify_cli.classify, ["--target", "http://localhost:8001", str(folder)])
    assert result.exit_code == 2
    assert "expected HOST:PORT, without http://" in " ".join(result.stderr.split())


# --output


KINDS = ("jsonl", "csv", "parquet")


def results(path: Path) -> list[dict[str, Any]]:
    """Photo and outcome of every record, in the order of the file."""
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        rows = [{**row, "photo": os.fsdecode(row["path"])} for row in table]
        return [{"photo": row["photo"], "label": row["label"], "reason": row["error_reason"]} for row in rows]
    text = path.read_bytes().decode(errors="surrogateescape")
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        return [{"photo": row["photo"], "label": row["label"], "reason": row["error_reason"]} for row in rows]
    found = map(json.loads, text.splitlines())
    return [
        {
            "photo": row["photo"],
            "label": row["predictions"][0]["label"] if row["predictions"] else "",
            "reason": row["error"] and row["error"]["reason"],
        }
        for row in found
    ]


@pytest.fixture(params=KINDS)
def output(request, tmp_path: Path) -> Path:
    return tmp_path / f"results.{request.param}"


def answered(path: Path) -> dict[str, str]:
    found = results(path)
    assert len({row["photo"] for row in found}) == len(found), "a photo is in it twice"
    return {Path(row["photo"]).name: row["label"] or row["reason"] for row in found}


ANSWERS = {"green.jpeg": "tulips", "red.PNG": "daisy", "c.tif": "roses"}


def test_results_are_written_to_a_file(classify, folder: Path, output: Path) -> None:
    result = classify(folder, "--output", output)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (f"3 of 3 answered by flowers/1 on CPUExecutionProvider\n{output} holds 3 photos\n")
    assert answered(output) == ANSWERS
    assert [path.name for path in output.parent.iterdir() if path.name.startswith("results")] == [output.name]


def test_the_same_command_goes_on_with_what_is_new(classify, folder: Path, output: Path, pictures) -> None:
    classify(folder, "--output", output)
    (folder / "new.png").write_bytes(pictures["roses"])
    result = classify(folder, "--output", output)
    assert result.stdout.splitlines()[0] == "1 of 1 answered by flowers/1 on CPUExecutionProvider"
    assert answered(output) == {**ANSWERS, "new.png": "roses"}
    again = classify(folder, "--output", output)
    assert (again.exit_code, again.stdout) == (0, f"{output} holds 4 photos\n")


def test_a_photo_is_known_however_its_path_is_written(classify, folder: Path, output: Path, monkeypatch) -> None:
    classify(folder, "--output", output)
    monkeypatch.chdir(folder)
    assert classify(".", "--output", output).stdout == f"{output} holds 3 photos\n"


def test_failed_photos_are_kept_and_asked_again_when_told_to(classify, folder: Path, output: Path, pictures) -> None:
    broken = folder / "broken.jpg"
    broken.write_bytes(b"junk")
    result = classify(folder, "--output", output)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "3 of 4 answered by flowers/1 on CPUExecutionProvider; IMAGE_FORMAT_REFUSED 1",
        f"{output} holds 4 photos, 1 of which failed: --retry-failed asks for them again",
    ]
    broken.write_bytes(pictures["daisy"])
    kept = classify(folder, "--output", output)
    assert (kept.exit_code, answered(output)["broken.jpg"]) == (1, "IMAGE_FORMAT_REFUSED")
    assert classify(folder, "--output", output, "--retry-failed").exit_code == 0
    assert answered(output) == {**ANSWERS, "broken.jpg": "daisy"}


def test_names_that_are_no_utf8_go_into_the_file_and_are_known(classify, folder: Path, output: Path, pictures) -> None:
    name = os.fsdecode(b"caf\xe9 \n.png")
    (folder / name).write_bytes(pictures["daisy"])
    classify(folder, "--output", output)
    assert answered(output) == {**ANSWERS, name: "daisy"}
    assert classify(folder, "--output", output).stdout == f"{output} holds 4 photos\n"


def test_lines_may_be_printed_as_well(classify, folder: Path, output: Path) -> None:
    result = classify(folder, "--output", output, "--json")
    assert {Path(line["photo"]).name: line["predictions"][0]["label"] for line in lines(result)} == ANSWERS
    assert answered(output) == ANSWERS


def test_another_kind_of_file_is_wrong_usage(classify, folder: Path, tmp_path: Path) -> None:
    result = classify(folder, "--output", tmp_path / "results.txt")
    assert result.exit_code == 2
    assert "should end in one of .jsonl, .csv, .parquet" in " ".join(result.stderr.split())


def test_another_file_is_left_as_it_is(classify, folder: Path, output: Path) -> None:
    output.write_text("Dear diary\n")
    assert isinstance(classify(folder, "--output", output).exception, OutputForeign)
    assert output.read_text() == "Dear diary\n"


def test_an_output_has_the_answers_of_one_version(start_edge, tmp_path, publish_bundle, folder, output) -> None:
    models = tmp_path / "models"
    publish_bundle(models)
    first = start_edge(models)
    assert run_on(first, folder, "--output", output).exit_code == 0
    publish_bundle(models, seed=1)
    (folder / "a/green.jpeg").rename(folder / "renamed.jpeg")
    second = start_edge(models)
    refused = run_on(second, folder, "--output", output)
    assert isinstance(refused.exception, OutputOfAnotherModel)
    assert f"{output} holds answers of flowers/1, and flowers/2 would answer now" in str(refused.exception)
    assert answered(output) == ANSWERS
    mixed = run_on(second, folder, "--output", output, "--mix-models")
    assert mixed.stdout.startswith("1 of 1 answered by flowers/2")
    assert answered(output) == {**ANSWERS, "renamed.jpeg": "tulips"}


def run_on(edge: Any, *arguments: object) -> Result:
    command = ["--target", f"127.0.0.1:{edge.port}", *map(str, arguments)]
    return CliRunner().invoke(classify_cli.classify, command)


def test_a_version_that_leaves_in_the_middle_ends_the_run(start_edge, folder: Path, output: Path) -> None:
    """Its photos have not failed; they wait for a decision."""
    edge = start_edge()
    find = edge.classifier.registry.find

    def left(name: str = "", version: int = 0, label: str = "", request_id: str = "") -> Any:
        if request_id:  # of a picture
            raise VersionNotFound(name, version, [2])
        return find(name, version, label, request_id)

    edge.classifier.registry.find = left
    result = run_on(edge, folder, "--output", output)
    assert isinstance(result.exception, ModelLeft)
    assert "was begun with flowers/1, which serves no more" in str(result.exception)
    edge.classifier.registry.find = find
    assert run_on(edge, folder, "--output", output).exit_code == 0
    assert answered(output) == ANSWERS


def test_a_server_that_stops_answering_leaves_what_there_is(start_edge, folder: Path, output: Path) -> None:
    edge = start_edge()
    edge.engine.gate.clear()
    result = run_on(edge, folder, "--output", output, "--timeout-s", "0.2")
    edge.engine.gate.set()
    assert isinstance(result.exception, CallFailed)
    assert "has sent no answer for 0.2 s" in str(result.exception)
    assert "the answers so far are in" in result.stderr
    assert "the same command resumes from there" in result.stderr
    assert run_on(edge, folder, "--output", output).exit_code == 0
    assert answered(output) == ANSWERS


# Interruptions


@pytest.fixture
def many(tmp_path: Path, pictures) -> Path:
    """Two hundred pictures and a pipe: naming it, last, keeps the client until somebody writes."""
    root = tmp_path / "many"
    for number in range(200):
        path = root / f"{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures["daisy"])
    os.mkfifo(root / "pipe.png")
    return root


@pytest.fixture
def begun(start_edge, many: Path, output: Path, eventually):
    """A process that has written some of its answers, and the edge that it talks to."""
    edge = start_edge(lanes=2)
    written = output if output.suffix != ".parquet" else Path(f"{output}.partial.jsonl")
    arguments = ["--target", f"127.0.0.1:{edge.port}", many, many / "pipe.png", "--output", output]
    with subprocess.Popen(
        [sys.executable, "-m", "anther", "classify", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            eventually(lambda: written.exists() and written.read_bytes().count(b"\n") > 100)
            yield edge, process, written
        finally:
            process.kill()


def finished(edge: Any, many: Path, output: Path, picture: bytes) -> None:
    """The next run on the same output has each photo once."""
    (many / "pipe.png").unlink()
    (many / "pipe.png").write_bytes(picture)
    assert run_on(edge, many, "--output", output).exit_code == 0
    assert answered(output) == {**{f"{number:03}.png": "daisy" for number in range(200)}, "pipe.png": "roses"}


def test_a_killed_run_goes_on_and_has_each_photo_once(begun, many, output, pictures, eventually) -> None:
    edge, process, written = begun
    process.kill()
    process.wait(PATIENCE_S)
    eventually(lambda: edge.sample("anther_rejected_total", reason="CANCELLED") == 1)  # the server has noticed
    eventually(lambda: edge.lanes.waiting + edge.lanes.running == 0)
    runs, whole = edge.engine.runs, written.read_bytes()
    recorded = whole.count(b"\n") - (output.suffix == ".csv")
    with written.open("ab") as file:
        file.write(whole.splitlines(keepends=True)[-1][:40])  # and one more was half-way to the disk
    finished(edge, many, output, pictures["roses"])
    assert edge.engine.runs == runs + 201 - recorded  # only what was not there has been asked for


def test_ctrl_c_says_how_to_go_on(begun, many: Path, output: Path, pictures, eventually) -> None:
    edge, process, written = begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert errors.splitlines()[0] == f"the answers so far are in {written}; the same command resumes from there"
    assert errors.splitlines()[1:] == ["", "Aborted!"]
    eventually(lambda: edge.lanes.waiting + edge.lanes.running == 0)
    finished(edge, many, output, pictures["roses"])


def test_two_runs_do_not_write_one_file(begun, many: Path, output: Path) -> None:
    edge, _, _ = begun
    assert isinstance(run_on(edge, many, "--output", output).exception, OutputBusy)


def test_parquet_without_its_package_is_said_before_any_work(start_edge, folder: Path, tmp_path: Path) -> None:
    edge = start_edge()
    runs = edge.engine.runs
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"  # what an import then raises is a ModuleNotFoundError
        "from anther.cli import main; main()"
    )
    output = tmp_path / "results.parquet"
    arguments = ["classify", "--target", f"127.0.0.1:{edge.port}", str(folder), "--output", str(output)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "anther: this command needs the package 'pyarrow'; run `pip install 'anther[parquet]'`\n"
    assert edge.engine.runs == runs
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


# The progress bar


def test_in_a_terminal_the_photos_are_counted_meanwhile(classify, folder, output, monkeypatch, eventually) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    bars = []
    progress = Screen.progress
    monkeypatch.setattr(Screen, "progress", lambda screen: bars.append(progress(screen)) or bars[-1])
    classify(folder, "--output", output)
    classify(folder, "--output", output)  # when all of them are there already
    assert [bar.tasks[0].completed for bar in bars] == [3, 3]
    eventually(lambda: [bar.tasks[0].total for bar in bars] == [3, 3])


def test_the_options_import_nothing_heavy() -> None:
    code = "import sys, anther.commands.classify; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"grpc", "google", "numpy", "PIL", "rich", "pyarrow"} & set(done.stdout.split())
