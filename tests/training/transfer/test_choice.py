import pytest

from training.config import Recipe
from training.runs.records import Depth, Similarity
from training.transfer import choice
from training.transfer.choice import is_open


def measured(*linear, photos=1000, chance=0.2, knn=None):
    """Depths of 6, 12, 18… blocks; k-NN scores as the probe does where nothing else is said."""
    scores = zip(linear, knn or linear, strict=True)
    return Similarity(photos, chance, tuple(Depth(6 * (at + 1), *pair) for at, pair in enumerate(scores)))


@pytest.mark.parametrize(
    ("photos", "found", "strategy"),
    [
        (1000, measured(0.5, 0.6, 0.9), "finetune"),  # many, like the source
        (1000, measured(0.5, 0.6, 0.4), "finetune"),  # many, unlike it
        (1000, measured(0.2, 0.21, 0.19), "scratch"),  # many, and nothing to keep
        (1000, measured(0.2, 0.21, 0.19, knn=(0.4, 0.2, 0.2)), "finetune"),  # neighbours see what the probe does not
        (1000, measured(0.5, 0.9, 0.995), "head"),  # nothing left to gain
        (50, measured(0.5, 0.6, 0.9, photos=50), "head"),  # few, like the source
        (50, measured(0.5, 0.93, 0.91, photos=50), "head"),  # a difference that chance explains
        (50, measured(0.5, 0.8, 0.6, photos=50, knn=(0.5, 0.55, 0.7)), "head"),  # neighbours contradict the probe
        (50, measured(0.5, 0.9, 0.7, photos=50), "truncate"),  # few, unlike it
        (50, measured(0.3, 0.4, 0.3, photos=50), "finetune"),  # few, and no depth fits
        (50, measured(0.2, 0.9, 1.0, photos=50), "head"),
        (50, None, "scratch"),
    ],
)
def test_the_choice_follows_size_and_scores(photos, found, strategy):
    assert choice.decide(photos, 5, found).strategy == strategy


def test_truncate_keeps_the_depth_that_the_probe_likes_best():
    chosen = choice.decide(50, 5, measured(0.6, 0.9, 0.9, 0.6, photos=50))
    assert chosen.keep_blocks == 18  # among equals the deepest
    assert chosen.resolved(Recipe(strategy="auto")) == Recipe(strategy="truncate", keep_blocks=18)


def test_a_single_class_in_nearly_all_photos_is_no_achievement():
    """0.9 is good where chance is 0.2, and nothing where one class has 0.9 of the photos."""
    assert choice.decide(1000, 2, measured(0.9, 0.9, 0.9, chance=0.9)).strategy == "scratch"


def test_the_reasons_are_two_sentences_with_the_numbers():
    chosen = choice.decide(50, 5, measured(0.5, 0.91, 0.72, photos=50, knn=(0.5, 0.9, 0.7)))
    size, why = chosen.reasons
    assert size == (
        "There are 50 training photos of 5 classes, 10 a class; a linear probe (k-NN) on the pretrained network's last "
        "features gets 0.72 (0.70) right, after 12 of 18 blocks 0.91 (0.90), where chance is 0.20."
    )
    assert why == ("Few photos call for ready features, and those after 12 blocks fit better than the last (truncate).")
    assert "after" not in choice.decide(50, 5, measured(0.5, 0.9)).reasons[0]  # the last is the best


def test_an_open_depth_is_filled_with_the_best_one():
    chosen = choice.depth_only(measured(0.5, 0.8, 0.3))
    assert (chosen.strategy, chosen.keep_blocks) == ("truncate", 12)
    assert "first 12 blocks" in chosen.reasons[1]


@pytest.mark.parametrize(
    ("recipe", "is_it"),
    [
        (Recipe(strategy="auto"), True),
        (Recipe(strategy="truncate"), True),
        (Recipe(strategy="truncate", keep_blocks=3), False),
        (Recipe(strategy="head"), False),
    ],
)
def test_only_auto_and_a_truncation_without_depth_leave_something_open(recipe, is_it):
    assert is_open(recipe) == is_it
