import dataclasses
import json

import pytest

from bundle import schema
from training.config import Recipe
from training.errors import RecipeInvalid


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("lr", -1.0, "from 0 to 10"),
        ("lr", "fast", "a number"),
        ("lr", float("nan"), "from 0 to 10"),
        ("epochs", 0, "at least 1"),
        ("epochs", 2.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("trivial_augment", 1, "true or false"),
        ("strategy", "magic", "one of auto, head, truncate, finetune, scratch"),
        ("crop", 300, "at most resize, which is 232"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value, expected):
    with pytest.raises(RecipeInvalid, match=field) as caught:
        Recipe(**{field: value})
    assert repr(value) in str(caught.value)
    assert expected in str(caught.value)


def test_a_recipe_survives_json():
    recipe = Recipe(strategy="head", lr=0.01, trivial_augment=True)
    assert schema.read(Recipe, schema.parse(json.dumps(recipe.record()))) == recipe


def test_whole_numbers_pass_where_any_number_does():
    assert Recipe(lr=1).lr == 1


def test_every_field_says_what_it_trades():
    for field in dataclasses.fields(Recipe):
        assert field.metadata["text"].endswith("."), field.name


def test_stored_photos_are_at_least_as_large_as_crops():
    with pytest.raises(RecipeInvalid, match=r"stored_size' is 100; expected 0, or at least train_size, which is 224"):
        Recipe(stored_size=100)
    assert Recipe(stored_size=224).stored_size == 224
