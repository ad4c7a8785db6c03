import contextlib
import dataclasses
import math
import typing
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Recipe, toml
from training.errors import ConfigInvalid, RecipeInvalid

EXAMPLES = Path(__file__).parents[3] / "examples"


def values(field, kind):
    low, high = field.metadata["low"], field.metadata["high"]
    if typing.get_origin(kind) is Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(int(low), None if high == math.inf else int(high))
    return st.floats(low, None if high == math.inf else high, allow_infinity=False)


def fitting(fields):
    """A recipe of such values; one that goes with no recipe of those before it gives way."""
    recipe = Recipe()
    for name, value in fields.items():
        with contextlib.suppress(RecipeInvalid):
            recipe = dataclasses.replace(recipe, **{name: value})
    return recipe


recipes = st.fixed_dictionaries(
    {field.name: values(field, typing.get_type_hints(Recipe)[field.name]) for field in dataclasses.fields(Recipe)}
).map(fitting)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@settings(deadline=None, max_examples=30)
@given(recipe=recipes)
def test_a_written_recipe_is_read_back_as_it_was(tmp_path_factory, recipe):
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    path.write_text(toml.write(recipe))
    assert Recipe(**toml.read(path)) == recipe


def test_every_setting_is_written_after_its_meaning_and_range():
    lines = toml.write(Recipe()).splitlines()
    assert all(len(line) <= 110 for line in lines)
    for field in dataclasses.fields(Recipe):
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{field.name} = "))
        assert lines[at - 1].startswith("# "), field.name
    assert "# Share of the target spread over all classes; guards against overconfidence. From 0 to 0.9." in lines
    assert "# Most passes over the training photos. At least 1." in lines
    assert "# sgd is SGD with Nesterov momentum. One of sgd, adamw, rmsprop." in lines


@pytest.mark.parametrize(
    "text",
    [
        "lr = 0.1\nmin_scale = 0.5\nfind_lr = true",
        "lr = 0.1\nmin-scale = 0.5\nfind-lr = true",
        "min-scale = 0.5\n[optimisation]\nlr = 0.1\nfind-lr = true",
        "[optimisation]\nlr = 0.1\nfind_lr = true\n[augmentation]\nmin_scale = 0.5",
    ],
)
def test_keys_stand_alone_or_in_the_table_of_their_group(file, text):
    assert toml.read(file(text)) == {"lr": 0.1, "min_scale": 0.5, "find_lr": True}


def test_an_empty_file_sets_nothing(file):
    assert toml.read(file("# nothing\n[transfer]\n")) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lerning_rate = 1\nlrr = 1", "'lerning_rate' is not a key of the recipe"),
        ("batch_sise = 1", "'batch_sise' is not a key of the recipe; did you mean 'batch_size'?"),
        ("Batch-Size = 1", "'Batch-Size' is not a key of the recipe; did you mean 'batch_size'?"),
        ("[augmentation]\ntrivialaugment = true", "did you mean 'trivial_augment'?"),
        ("qqq = 1", "'qqq' is not a key of the recipe; `anther train --help` lists all"),
        ("[optimization]\nlr = 1", "'optimization' is not a table of the recipe; did you mean 'optimisation'?"),
        ("[transfer]\nnoise = 0.1", "'noise' stands in [transfer], but belongs in [augmentation]"),
        ("lr = 0.1\n[optimisation]\nlr = 0.2", "'lr' is set twice"),
        ("min-scale = 0.1\nmin_scale = 0.1", "'min_scale' is set twice"),
        ("lr = 'fast'", "'lr' is 'fast'; expected a number"),
        ("epochs = 2.0", "'epochs' is 2.0; expected a whole number"),
        ("epochs = [1]", "'epochs' is [1]; expected a whole number"),
        ("find_lr = 1", "'find_lr' is 1; expected true or false"),
        ("strategy = 'magic'", "'strategy' is 'magic'; expected one of auto, head"),
        ("dropout = 1.5", "'dropout' is 1.5; expected from 0 to 0.9"),
        ("warmup_epochs = inf", "'warmup_epochs' is inf; expected at least 0"),
        ("lr = nan", "'lr' is nan; expected from 0 to 10"),
        ("lr =", "it is not TOML"),
        (b"lr = 1 # \xff", "it is not TOML"),
    ],
)
def test_a_mistake_is_named_with_the_file_and_what_was_expected(file, text, expected):
    path = file(text)
    with pytest.raises(ConfigInvalid) as caught:
        toml.read(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        toml.read(tmp_path)


def test_the_reference_trains_a_classifier_alone_on_crops_and_mirror_images():
    reference = Recipe(**toml.read(EXAMPLES / "reference.toml"))
    assert (reference.strategy, reference.head_features, reference.batch_size) == ("head", "augmented", 8)
    record = reference.record()
    off = ["vertical_flip", "rotation", "translation", "scale", "color_jitter", "noise", "blur", "erasing", "mixup",
           "cutmix", "label_smoothing", "weight_decay", "l1", "ema_decay", "clip_norm", "warmup_epochs"]  # fmt: skip
    assert {name: record[name] for name in off} == dict.fromkeys(off, 0)
    assert not reference.trivial_augment


def test_a_run_holds_its_recipe_as_a_configuration_file(finished):
    assert Recipe(**toml.read(finished.run.path / "recipe.toml")) == finished.run.recipe()
