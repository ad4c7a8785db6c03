"""From a request to ranked classes: the same answer whoever else is asking."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import ImageFormatRefused, ImageTooManyBytes, ImageTooManyPixels, ModelNotFound, VersionNotFound
from bundle.preprocessing import Limits
from bundle.repository import Repository
from service.core.answers import Answer
from service.core.classifier import Classifier
from service.core.requests import ImageRequest, PixelsRequest, Target
from service.engines.engine import Outputs, open_on_cpu
from service.errors import DeadlineExpired, Draining, InvalidArgument, QueueFull
from service.scheduling.fair_queue import Bounds
from service.scheduling.lanes import Lanes
from service.versions.loader import LiveModel
from service.versions.registry import Registry

LABELS = ("daisy", "tulips", "roses")
ANY = Target()
POISON = 255  # a pixel value that the fixed engine fails on


class FixedEngine:
    """Gives every picture the same probabilities."""

    provider = "CPUExecutionProvider"

    def __init__(self, probabilities: list[float], largest: int = 1) -> None:
        self._probabilities = np.array([probabilities], np.float32)
        self.batch_sizes: tuple[int, ...] = (1, largest)
        self.rows: list[int] = []
        self.second_may_run = threading.Event()
        self.second_may_run.set()

    def run(self, parts: Any, evidence: bool = False) -> Outputs:
        count = sum(map(len, parts))
        self.rows.append(count)
        assert len(self.rows) < 2 or self.second_may_run.wait(60)
        if any(part.max() == POISON for part in parts):
            raise OSError("the device is gone")
        probabilities = np.repeat(self._probabilities, count, axis=0)  # lanes run at once
        return Outputs(probabilities, np.zeros_like(probabilities))

    def close(self) -> None:
        raise AssertionError("nobody closes it")


@pytest.fixture(scope="module")
def registry(models: Path) -> Iterator[Registry]:
    registry = Registry(Repository(models), open_on_cpu)
    registry.load_all()
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    lanes = Lanes(4, Bounds(1000, 2**30))
    yield lanes
    lanes.close()


@pytest.fixture(scope="module")
def classifier(registry: Registry, lanes: Lanes) -> Classifier:
    return Classifier(registry, lanes, Limits())


@pytest.fixture
def classify(classifier: Classifier) -> Callable[..., Answer]:
    def ask(image: bytes, target: Target = ANY, **options: Any) -> Answer:
        return asyncio.run(classifier.classify(classifier.find(target), ImageRequest(image, **options)))

    return ask


@pytest.fixture
def classify_with(registry: Registry, lanes: Lanes, make_picture) -> Callable[..., Answer]:
    """The answer of a model that gives every picture these probabilities."""
    bundle = registry.find().bundle

    def answer(probabilities: list[float], **options: Any) -> Answer:
        model = LiveModel(bundle, FixedEngine(probabilities), 0.0, 0.0)
        request = ImageRequest(make_picture((9, 9, 9)), **options)
        return asyncio.run(Classifier(registry, lanes, Limits()).classify(model, request))

    return answer


# Answers


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_gets_its_class_in_every_format(classify, make_picture, label: str, format_name: str) -> None:
    colour = {"daisy": (255, 0, 0), "tulips": (0, 255, 0), "roses": (0, 0, 255)}[label]
    answer = classify(make_picture(colour, format_name=format_name))
    assert answer.predictions[0].label == label
    assert (answer.model.name, answer.model.version) == ("flowers", 1)


@settings(max_examples=15, deadline=None)
@given(colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=40), sizes=st.integers(1, 90))
def test_concurrent_answers_equal_single_answers(classifier, make_picture, colours, sizes) -> None:
    model = classifier.find(ANY)
    requests = [ImageRequest(make_picture(colour, (sizes, 30)), top_k=3) for colour in colours]

    async def together() -> list[Answer]:
        return await asyncio.gather(*(classifier.classify(model, request) for request in requests))

    async def one_by_one() -> list[Answer]:
        return [await classifier.classify(model, request) for request in requests]

    shared, alone = asyncio.run(together()), asyncio.run(one_by_one())
    assert [answer.predictions for answer in shared] == [answer.predictions for answer in alone]


def test_probabilities_are_calibrated_and_ranked(classify, pictures) -> None:
    predictions = classify(pictures["tulips"], top_k=3).predictions
    probabilities = [found.probability for found in predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert [found.label for found in predictions] == [LABELS[found.index] for found in predictions]


def test_equal_probabilities_rank_in_the_order_of_the_outputs(classify_with) -> None:
    assert [found.index for found in classify_with([0.25, 0.5, 0.25]).predictions] == [1, 0, 2]


@pytest.mark.parametrize(("top_k", "count"), [(0, 3), (1, 1), (2, 2), (3, 3), (4, 3), (2**31 - 1, 3)])
def test_top_k_is_how_many_predictions_there_are_at_most(classify, pictures, top_k: int, count: int) -> None:
    assert len(classify(pictures["daisy"], top_k=top_k).predictions) == count


def test_the_default_is_five_predictions(tmp_path, publish_bundle, lanes, pictures) -> None:
    publish_bundle(tmp_path, labels=tuple("abcdefg"))
    registry = Registry(Repository(tmp_path), open_on_cpu)
    registry.load_all()
    asked = Classifier(registry, lanes, Limits()).classify(registry.find(), ImageRequest(pictures["daisy"]))
    answer = asyncio.run(asked)
    assert len(answer.predictions) == 5


@pytest.mark.parametrize("top_k", [-1, -(2**31)])
def test_a_negative_top_k_is_refused(classify, pictures, top_k: int) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        classify(pictures["daisy"], top_k=top_k)
    assert refusal.value.facts["field"] == "top_k"
    assert str(refusal.value) == f"'top_k' is {top_k}; expected 0 (for the default) or more"


@pytest.mark.parametrize(
    ("probabilities", "confident"),
    [([0.75, 0.25, 0.0], True), ([0.25, 0.75, 0.0], True), ([0.5, 0.5, 0.0], False), ([0.4, 0.3, 0.3], False)],
)
def test_an_answer_is_confident_when_its_first_class_reaches_the_threshold(
    classify_with, registry, probabilities, confident
) -> None:
    assert registry.find().bundle.manifest.calibration.threshold == 0.7
    assert classify_with(probabilities).confident is confident
    assert classify_with(probabilities, top_k=1).confident is confident


def test_every_stage_is_timed(classify, pictures) -> None:
    began = time.perf_counter()
    timings = classify(pictures["roses"]).timings
    spent = time.perf_counter() - began
    stages = [timings.queue, timings.decode, timings.preprocess, timings.inference, timings.postprocess]
    assert all(stage >= 0 for stage in stages)
    assert 0 < sum(stages) <= spent


def test_evidence_comes_with_the_picture_that_the_model_saw(classify, pictures) -> None:
    answer = classify(pictures["tulips"], evidence=True)
    assert answer.outputs.evidence.shape == (1, 3, 4, 4)
    assert answer.pixels.shape == (32, 32, 3)
    assert classify(pictures["tulips"]).outputs.evidence is None


# Pixels


def test_pixels_get_the_outputs_of_the_pictures_they_came_from(classifier, registry, pictures) -> None:
    preprocessing = registry.find().bundle.manifest.preprocessing
    pixels = np.stack([preprocessing(pictures[label]) for label in LABELS])
    answer = asyncio.run(classifier.infer(registry.find(), PixelsRequest(pixels, evidence=True)))
    assert answer.outputs.probabilities.argmax(1).tolist() == [0, 1, 2]
    assert answer.outputs.evidence.shape == (3, 3, 4, 4)
    alone = asyncio.run(classifier.classify(registry.find(), ImageRequest(pictures["roses"]))).outputs
    assert np.array_equal(answer.outputs.logits[2:], alone.logits)


def test_pixels_go_to_the_device_in_its_largest_batches(registry, lanes) -> None:
    engine = FixedEngine([0.2, 0.3, 0.5], largest=4)
    model, classifier = LiveModel(registry.find().bundle, engine, 0.0, 0.0), Classifier(registry, lanes, Limits())
    answer = asyncio.run(classifier.infer(model, PixelsRequest(np.zeros((10, 32, 32, 3), np.uint8))))
    assert sorted(engine.rows) == [2, 4, 4]
    assert answer.outputs.probabilities.shape == (10, 3)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 31, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 4), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
    ],
)
def test_pixels_of_another_shape_or_type_are_refused(classifier, pixels) -> None:
    with pytest.raises(InvalidArgument, match=r"expected uint8 \[N, 32, 32, 3\] with N of 1 or more"):
        asyncio.run(classifier.infer(classifier.find(ANY), PixelsRequest(pixels)))


def test_the_first_failing_part_fails_the_whole_and_cancels_the_rest(registry) -> None:
    engine = FixedEngine([0.2, 0.3, 0.5])
    one_lane = Lanes(1, Bounds(100, 2**30))
    model, classifier = LiveModel(registry.find().bundle, engine, 0.0, 0.0), Classifier(registry, one_lane, Limits())
    pixels = np.zeros((60, 32, 32, 3), np.uint8)
    pixels[0] = POISON
    engine.second_may_run.clear()
    with pytest.raises(OSError, match="the device is gone"):
        asyncio.run(classifier.infer(model, PixelsRequest(pixels)))
    engine.second_may_run.set()
    one_lane.close()
    assert len(engine.rows) <= 2


def test_parts_that_the_queue_refuses_take_the_accepted_ones_with_them(registry) -> None:
    small = Lanes(1, Bounds(3, 2**30))
    classifier = Classifier(registry, small, Limits())
    with pytest.raises(QueueFull):
        asyncio.run(classifier.infer(registry.find(), PixelsRequest(np.zeros((50, 32, 32, 3), np.uint8))))
    assert small.waiting <= 3
    small.close()


# Refusals


def test_what_is_no_picture_is_refused_to_its_caller(classify) -> None:
    with pytest.raises(ImageFormatRefused):
        classify(b"")


@pytest.mark.parametrize(
    ("limits", "kind"), [(Limits(max_bytes=10), ImageTooManyBytes), (Limits(max_pixels=2399), ImageTooManyPixels)]
)
def test_the_limits_are_those_that_were_set(registry, lanes, pictures, limits, kind) -> None:
    with pytest.raises(kind):
        asyncio.run(Classifier(registry, lanes, limits).classify(registry.find(), ImageRequest(pictures["daisy"])))


def test_unknown_models_and_versions_are_refused(classify, pictures) -> None:
    with pytest.raises(ModelNotFound, match="no model 'trees'; available: flowers"):
        classify(pictures["daisy"], Target("trees"))
    with pytest.raises(VersionNotFound, match="no version 2; available: 1"):
        classify(pictures["daisy"], Target(version=2))


def test_a_passed_deadline_is_told(classify, pictures) -> None:
    with pytest.raises(DeadlineExpired):
        classify(pictures["daisy"], deadline=time.monotonic() - 1)


def test_draining_refuses_everything(registry, lanes, pictures) -> None:
    classifier = Classifier(registry, lanes, Limits())
    classifier.drain()
    with pytest.raises(Draining):
        classifier.find(ANY)


# Patient requests


def test_a_patient_request_waits_for_its_place(registry, pictures) -> None:
    """One lane and a queue of one: of five at once, three would be refused."""
    small = Lanes(1, Bounds(1, 2**30))
    classifier, model = Classifier(registry, small, Limits()), registry.find()

    async def ask() -> list[Answer]:
        requests = [ImageRequest(pictures["daisy"]) for _ in range(5)]
        return await asyncio.gather(*(classifier.classify(model, request, asyncio.Event()) for request in requests))

    answers = asyncio.run(asyncio.wait_for(ask(), 60))
    small.close()
    assert [answer.predictions[0].label for answer in answers] == ["daisy"] * 5


def held(registry: Registry) -> tuple[Classifier, LiveModel, FixedEngine, Lanes]:
    """A classifier whose one lane and whose queue of one are taken until the engine's `second_may_run` is set."""
    engine = FixedEngine([0.2, 0.3, 0.5])
    engine.rows.append(0)  # as if one had run
    engine.second_may_run.clear()
    lanes = Lanes(1, Bounds(1, 2**30))
    return Classifier(registry, lanes, Limits()), LiveModel(registry.find().bundle, engine, 0.0, 0.0), engine, lanes


async def until_taken(lanes: Lanes) -> None:
    while not (lanes.running == 1 and lanes.waiting == 1):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("ending", ["deadline", "drain", "cancel"])
def test_a_patient_request_that_gets_no_place_is_told(registry, make_picture, ending: str) -> None:
    classifier, model, engine, lanes = held(registry)

    async def ask() -> None:
        request = ImageRequest(make_picture((9, 9, 9)))
        others = [asyncio.ensure_future(classifier.classify(model, request)) for _ in range(2)]
        await until_taken(lanes)
        deadline = time.monotonic() + 0.05 if ending == "deadline" else None
        last = asyncio.ensure_future(
            classifier.classify(model, ImageRequest(make_picture((9, 9, 9)), deadline=deadline), asyncio.Event())
        )
        await asyncio.sleep(0.01)
        if ending == "drain":
            classifier.drain()
        if ending == "cancel":
            last.cancel()
        expected = {"deadline": DeadlineExpired, "drain": Draining, "cancel": asyncio.CancelledError}[ending]
        with pytest.raises(expected):
            await last
        engine.second_may_run.set()
        await asyncio.gather(*others)

    try:
        asyncio.run(asyncio.wait_for(ask(), 60))
    finally:
        engine.second_may_run.set()
        lanes.close()
    assert engine.rows == [0, 1, 1], "the one without a place never reached the engine"


def test_the_event_is_set_when_the_request_has_its_place(registry, make_picture) -> None:
    classifier, model, engine, lanes = held(registry)
    placed = [asyncio.Event() for _ in range(3)]

    async def ask() -> list[bool]:
        request = ImageRequest(make_picture((9, 9, 9)))
        tasks = [asyncio.ensure_future(classifier.classify(model, request, each)) for each in placed]
        await until_taken(lanes)
        await asyncio.sleep(0.02)
        found = [each.is_set() for each in placed]
        engine.second_may_run.set()
        await asyncio.gather(*tasks)
        return [*found, *(each.is_set() for each in placed)]

    try:
        found = asyncio.run(asyncio.wait_for(ask(), 60))
    finally:
        engine.second_may_run.set()
        lanes.close()
    assert found == [True, True, False, True, True, True]


def test_what_the_empty_queue_cannot_hold_is_refused_at_once(registry) -> None:
    small = Lanes(1, Bounds(3, 2**30))
    classifier = Classifier(registry, small, Limits())
    request = PixelsRequest(np.zeros((50, 32, 32, 3), np.uint8))
    with pytest.raises(QueueFull):
        asyncio.run(asyncio.wait_for(classifier.infer(registry.find(), request, asyncio.Event()), 60))
    small.close()


# Several images


def test_of_several_images_the_refused_one_is_named(classifier, registry, pictures) -> None:
    requests = [ImageRequest(image) for image in (pictures["daisy"], b"junk", pictures["roses"])]
    with pytest.raises(ImageFormatRefused, match=r"^image 1: the data is ") as refusal:
        asyncio.run(classifier.classify_all(registry.find(), requests))
    assert refusal.value.facts["index"] == "1"


def test_several_images_get_the_answers_that_each_gets_alone(classifier, registry, pictures) -> None:
    requests = [ImageRequest(image) for image in pictures.values()]
    together = asyncio.run(classifier.classify_all(registry.find(), requests))
    assert [answer.predictions[0].label for answer in together] == list(pictures)
