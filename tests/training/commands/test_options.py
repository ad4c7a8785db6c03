import dataclasses
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from training.commands.headings import Grouped
from training.commands.options import recipe_of, recipe_options
from training.commands.retrain import retrain
from training.commands.train import train
from training.config import Recipe
from training.config.recipe import GROUPS


@click.command(cls=Grouped)
@recipe_options
@click.pass_context
def show(context, **options):
    """Print the recipe."""
    click.echo(json.dumps(recipe_of(context, options).record()))


def call(command, *arguments, width=80):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], terminal_width=width)


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(
        "[optimisation]\nlr = 0.25\nepochs = 3\noptimizer = 'adamw'\n[augmentation]\ntrivial-augment = false\n"
    )
    return path


def test_the_command_line_goes_before_the_file_and_the_file_before_the_defaults(config):
    fields = json.loads(call(show, "--epochs", 5, "--config", config).stdout)
    expected = {"lr": 0.25, "epochs": 5, "optimizer": "adamw", "trivial_augment": False}
    assert fields == {**Recipe().record(), **expected}
    assert json.loads(call(show, "--config", config, "--trivial-augment").stdout)["trivial_augment"] is True


def test_the_default_of_an_option_on_the_command_line_still_goes_before_the_file(config):
    assert json.loads(call(show, "--config", config, "--epochs", Recipe().epochs).stdout)["epochs"] == Recipe().epochs


def test_help_shows_what_the_file_says_as_defaults(config):
    assert "[default: adamw]" in call(show, "--config", config, "--help", width=110).stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_sise = 4", "did you mean 'batch_size'?"),
        ("lr = 'fast'", "expected a number"),
        ("crop = 300", "at most resize, which is 232"),
    ],
)
def test_a_mistake_in_the_file_is_wrong_usage(tmp_path, text, expected):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    result = call(show, "--config", path)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", [train, retrain])
def test_an_unknown_option_names_the_nearest_one(command):
    result = call(command, "--batchsize", "4")
    assert result.exit_code == 2
    assert "No such option '--batchsize'. Did you mean '--batch-size'?" in result.stderr


def test_a_file_is_refused_for_a_run_that_has_its_own_recipe(config, tmp_path):
    result = call(train, "--resume", tmp_path, "--config", config)
    assert result.exit_code == 2
    assert "--config cannot be given with --resume" in result.stderr


@pytest.mark.parametrize("command", [train, retrain])
@pytest.mark.parametrize("width", [80, 110])
def test_help_lists_each_setting_under_its_group_within_the_terminal(command, width):
    lines = call(command, "--help", width=width).stdout.splitlines()
    assert all(len(line) <= width for line in lines)
    heading, found = "", {}
    for line in lines:
        if line.endswith(":") and not line.startswith(" "):
            heading = line
        elif line.startswith("  --"):
            found.setdefault(heading, []).append(line.split()[0][2:].replace("-", "_"))
    first, *groups = (name for name in found if name != "Further measurements:")
    assert first == "Options:"
    assert {"data", "name", "config", "device"} <= set(found[first])
    for heading, (name, group) in zip(groups, GROUPS.items(), strict=True):
        assert heading.lower().startswith(name)
        assert found[heading] == [field.name for field in dataclasses.fields(group)]


def test_an_unknown_option_like_no_other_is_only_named():
    assert call(show, "--zzzz").stderr.endswith("Error: No such option '--zzzz'.\n")


def test_only_options_that_are_not_hidden_are_listed_among_the_options():
    command = Grouped("look", params=[click.Argument(["photo"]), click.Option(["--secret"], hidden=True)])
    assert call(command, "--help").stdout.splitlines() == [
        "Usage: look [OPTIONS] PHOTO", "", "Options:", "  --help  Show this message and exit.",
    ]  # fmt: skip
