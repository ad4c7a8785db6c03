import json

import click
import pytest
from click.testing import CliRunner

from training.commands.data import check, data, flowers
from training.errors import EmptyClass, FolderTaken, LabelConflict, TooFewPhotos


def call(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path, draw):
    for label in ("blue", "red"):
        for number in range(20):
            draw(tmp_path, label, number)
    return tmp_path


def usable_seed(folder):
    refused = call(check, folder)
    return str(refused.exception).split("--split-seed ")[1].split(",")[0] if refused.exit_code else "0"


def test_help_explains_every_option():
    for command in (data, check, flowers):
        assert call(command, "--help").exit_code == 0
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name


def test_a_sound_set_is_shown_as_a_table(folder):
    result = call(check, folder, "--split-seed", usable_seed(folder))
    assert result.exit_code == 0, result.output
    assert "40 usable photos" in result.stdout
    assert "48×40" in result.stdout
    assert "ready to train" in result.stdout


def test_json_is_one_line_with_every_figure(folder):
    result = call(check, folder, "--json", "--split-seed", usable_seed(folder))
    found = json.loads(result.stdout)
    assert (found["trainable"], found["refused"], found["photos"]) == (True, None, 40)
    assert found["classes"][1]["label"] == "red"
    assert sum(found["classes"][1]["parts"].values()) == 20


def test_a_table_with_named_columns_is_checked(folder):
    rows = [f"{label}/{number:03}.png,{label}" for label in ("blue", "red") for number in range(20)]
    table = folder / "photos.csv"
    table.write_text("\n".join(["file,class", *rows]))
    options = ["--path-column", "file", "--label-column", "class", "--split-seed", usable_seed(folder)]
    assert "40 usable photos" in call(check, table, *options).stdout


def test_what_training_would_refuse_is_shown_and_refused(folder):
    (folder / "white").mkdir()
    result = call(check, folder)
    assert isinstance(result.exception, EmptyClass)
    assert "a class is empty" in result.stdout
    assert "ready to train" not in result.stdout
    found = json.loads(call(check, folder, "--json").stdout)
    assert (found["trainable"], found["refused"]) == (False, str(result.exception))
    assert found["classes"][2]["median_size"] is None


def test_a_part_without_photos_is_refused(folder):
    for number in range(1, 20):
        (folder / "red" / f"{number:03}.png").unlink()
    assert isinstance(call(check, folder).exception, TooFewPhotos)


def test_strict_refuses_content_under_two_labels(folder):
    (folder / "red" / "copy.png").write_bytes((folder / "blue" / "000.png").read_bytes())
    assert isinstance(call(check, folder, "--strict").exception, LabelConflict)


def test_the_download_does_not_touch_a_folder_that_is_there(folder):
    result = call(flowers, folder)
    assert isinstance(result.exception, FolderTaken)
