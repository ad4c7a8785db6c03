import dataclasses
import re

import numpy as np
import pytest

from bundle.verdict import Side
from training.errors import RecipeInvalid
from training.publishing import gate
from training.publishing.comparison import Comparison
from training.publishing.gate_policy import GatePolicy

LABELS = ("blue", "red")
UNCALIBRATED = {"max_nll_loss": 99, "max_calibration_loss": 1}


def side(**figures):
    return Side(**{"top1": 0.0, "negative_log_likelihood": 0.0, "expected_calibration_error": 0.0,
                   "model_bytes": 1000, "ms_per_picture": 2.0, **figures})  # fmt: skip


def answers(targets, right, sure=0.9):
    """Probabilities of two classes that are right where `right` says so."""
    chosen = np.where(right, targets, 1 - targets)
    return np.where(np.eye(2)[chosen] == 1, sure, 1 - sure)


def comparison(challenger, champion, targets=None, sure=(0.9, 0.9), **cost):
    """Of arrays that say on which photos each is right."""
    targets = np.arange(len(challenger)) % 2 if targets is None else targets
    return Comparison(
        LABELS,
        targets,
        answers(targets, challenger, sure[0]),
        answers(targets, champion, sure[1]),
        side(**cost),
        side(),
    )


def wrong(n, *places):
    right = np.ones(n, bool)
    right[list(places)] = False
    return right


def reasons(found, **policy):
    verdict = gate.weigh(found, "colours/7", GatePolicy(**policy))
    return [] if verdict.passed else list(verdict.reasons)


def test_an_equal_version_passes_and_the_verdict_says_why():
    verdict = gate.weigh(comparison(wrong(100, 1), wrong(100, 2)), "colours/7", GatePolicy())
    assert verdict.passed
    tally = "photos that only the new version gets right: 1, only the old one: 1 (p = 1)"
    assert verdict.reasons == (f"no worse than colours/7 on the same 100 photos: {tally}",)
    assert (verdict.only_challenger_right, verdict.only_champion_right, verdict.p_value) == (1, 1, 1.0)
    assert verdict.policy == GatePolicy().record()


def test_a_significant_loss_is_refused_whatever_the_margin():
    found = comparison(wrong(1000, *range(6)), wrong(1000))
    (reason,) = reasons(found, max_loss=0.5)
    assert reason.startswith("it is significantly less accurate: ")
    assert "p = 0.031" in reason


def test_a_loss_over_the_margin_is_refused_before_it_is_significant():
    found = comparison(wrong(100, *range(4), 50), wrong(100, 50))
    tally = "photos that only the new version gets right: 0, only the old one: 4 (p = 0.12)"
    assert reasons(found, **UNCALIBRATED) == [f"top-1 is 4.0% lower, where 2.0% is allowed: {tally}"]
    assert reasons(found, **UNCALIBRATED, max_loss=0.05) == []


def test_one_photo_of_a_small_test_split_is_chance():
    """5 % of 20 photos is over the margin, but an equal version has such luck half the time."""
    assert reasons(comparison(wrong(20, 3), wrong(20))) == []


def test_better_can_be_required():
    found = comparison(wrong(100), wrong(100, 1))
    assert reasons(found) == []
    (reason,) = reasons(found, require_better=True)
    assert "not significantly more accurate, as was asked for" in reason
    assert reasons(comparison(wrong(100), wrong(100, *range(6))), require_better=True, **UNCALIBRATED) == []


def test_one_class_must_not_pay_for_another():
    """Top-1 stays as it was; the class that lost is named."""
    n = 200
    blue, red = range(0, 40, 2), range(1, 41, 2)
    found = comparison(wrong(n, *blue), wrong(n, *red))
    (reason,) = reasons(found)
    assert reason == "class 'blue' has recall 0.800 instead of 1.000 on 100 photos, where 0.05 less is allowed"
    assert reasons(found, max_class_loss=0.3) == []


def test_a_small_class_does_not_fail_by_chance():
    """Three of six photos lost is half the recall, and no evidence."""
    targets = np.array([0] * 94 + [1] * 6)
    verdict = gate.weigh(
        comparison(wrong(100, 94, 95, 96, 0, 1, 2), wrong(100, 3, 4, 5, 6, 7, 8), targets), "colours/7", GatePolicy()
    )
    assert verdict.passed
    assert [(row.label, row.judged) for row in verdict.per_class] == [("blue", True), ("red", True)]
    tiny = gate.weigh(
        comparison(wrong(95, 94, 0), wrong(95, 1, 2), np.array([0] * 94 + [1])), "colours/7", GatePolicy()
    )
    assert tiny.passed
    assert tiny.remarks == ("too few photos to judge these classes one by one: red",)


def test_all_classes_together_rarely_fail_by_chance():
    """Of equal versions that differ on a tenth of the photos, at most one in twenty may be refused for a class."""
    draw = np.random.default_rng(0)
    n, refused, policy = 300, 0, GatePolicy(max_loss=1, **UNCALIBRATED)
    targets = np.arange(n) % 2
    for _ in range(200):
        ours, theirs = wrong(n, *draw.choice(n, 15)), wrong(n, *draw.choice(n, 15))
        verdict = gate.weigh(comparison(ours, theirs, targets), "colours/7", policy)
        refused += any("class" in reason for reason in verdict.reasons)
    assert refused <= 10


def test_worse_calibration_is_refused_with_its_figures():
    right = wrong(200, *range(0, 40, 2), *range(1, 40, 2))
    found = comparison(right, right, sure=(0.999, 0.8))
    nll, ece = reasons(found)
    assert re.fullmatch(r"the negative log-likelihood is 1\.38\d instead of 0\.50\d, where 0\.05 more is allowed", nll)
    assert ece == "the calibration error is 0.199 instead of 0.000, where 0.02 more is allowed"
    assert reasons(found, max_nll_loss=2, max_calibration_loss=0.3) == []


def test_calibration_on_a_handful_of_photos_is_not_judged():
    right = wrong(29, 0, 1, 2, 3, 4)
    assert reasons(comparison(right, right, sure=(0.999, 0.8))) == []


def test_a_rise_that_one_photo_makes_is_not_held_against_it():
    """One confident mistake lifts the mean over the margin, but is in only two of three resamples."""
    n = 40
    found = comparison(wrong(n, 0), wrong(n), sure=(0.98, 0.98))
    assert reasons(found) == []


def test_cost_over_the_factors_is_refused():
    right = wrong(50)
    found = comparison(right, right, ms_per_picture=3.2, model_bytes=2100)
    slow, large = reasons(found)
    assert slow == "a photo takes 3.20 ms instead of 2.00 on one thread, where 1.5 times as much is allowed"
    assert large.endswith("where 2 times as much is allowed")
    assert reasons(found, max_slowdown=1.7, max_growth=2.2) == []


def test_a_policy_checks_its_values():
    with pytest.raises(RecipeInvalid, match="'max_loss' is 2; expected from 0 to 1"):
        GatePolicy(max_loss=2)


class Answers:
    """What `judge` is given, of the finished run."""

    def __init__(self, finished):
        from training import pipeline
        from training.config import Machine

        self.context = pipeline.context_of(finished.run, Machine("cpu", 1))
        self.bundle = finished.bundle

    def judge(self, policy=None, champion="same", **changes):
        from training.progress import Silent

        serving = self.bundle if champion == "same" else champion
        changed = dataclasses.replace(self.bundle.manifest, **changes)
        challenger = dataclasses.replace(self.bundle, manifest=changed)
        return gate.judge(challenger, serving, self.context, policy or GatePolicy(max_slowdown=50), None, Silent())


@pytest.fixture
def judged(finished):
    return Answers(finished)


def test_a_version_compared_with_itself_is_equal_in_everything_but_time(judged, finished):
    verdict = judged.judge()
    assert verdict.passed
    assert verdict.champion == "colours/1"
    assert verdict.photos == len(judged.context.photos("test"))
    ours, theirs = (dataclasses.replace(found, ms_per_picture=0) for found in
                    (verdict.challenger_figures, verdict.champion_figures))  # fmt: skip
    assert ours == theirs
    assert ours.top1 == finished.bundle.manifest.metrics.top1
    assert ours.negative_log_likelihood == pytest.approx(finished.bundle.manifest.metrics.negative_log_likelihood)


def test_the_first_version_passes_and_says_so(judged):
    verdict = judged.judge(champion=None)
    assert verdict.passed
    assert verdict.reasons == ("there is no version that it could be worse than",)
    assert verdict.champion is None


def test_labels_are_compared_by_name_and_not_by_place(judged, finished):
    """The same graph with its labels called otherwise answers every photo wrong."""
    verdict = judged.judge(labels=("green", "red", "blue"))
    assert not verdict.passed
    assert verdict.challenger_figures.top1 < 0.5 < verdict.champion_figures.top1


def test_a_label_that_would_get_lost_is_refused_unless_it_may(judged):
    verdict = judged.judge(labels=("blue", "green", "rose"))
    assert (
        "it does not know red, which the version in service does; --allow-label-change allows that" in verdict.reasons
    )
    assert "no longer known: red" in verdict.remarks
    allowed = judged.judge(GatePolicy(allow_label_change=True, max_slowdown=50), labels=("blue", "green", "rose"))
    assert not any("--allow-label-change" in reason for reason in allowed.reasons)


def test_new_labels_are_not_compared(judged, finished):
    """The champion knows two of the three classes: its photos of the third are left out."""
    narrow = dataclasses.replace(finished.bundle, manifest=dataclasses.replace(
        finished.bundle.manifest, labels=("blue", "green", "other")))  # fmt: skip
    verdict = judged.judge(GatePolicy(allow_label_change=True, max_slowdown=50), champion=narrow)
    assert verdict.passed
    assert {row.label for row in verdict.per_class} == {"blue", "green"}
    assert verdict.left_out == sum(photo.label == "red" for photo in judged.context.photos("test"))
    assert "new, so not compared: red" in verdict.remarks


@pytest.mark.parametrize("allowed", [False, True])
def test_without_a_common_label_nothing_can_be_compared(judged, finished, allowed):
    other = dataclasses.replace(finished.bundle, manifest=dataclasses.replace(
        finished.bundle.manifest, labels=("cat", "dog", "owl")))  # fmt: skip
    verdict = judged.judge(GatePolicy(allow_label_change=allowed), champion=other)
    assert verdict.passed is allowed
    assert (verdict.photos, verdict.champion_figures) == (0, None)
    assert ("nothing can be compared" in verdict.reasons[0]) is allowed


def test_other_preprocessing_is_said_and_each_uses_its_own(judged, finished):
    preprocessing = dataclasses.replace(finished.bundle.manifest.preprocessing, resize=48)
    assert (
        "the versions preprocess differently; each answered in its own way"
        in judged.judge(preprocessing=preprocessing).remarks
    )
