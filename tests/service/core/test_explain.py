"""What speaks for a class: the map's claim that its mean plus a bias is the logit, and which class is explained."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from bundle import golden
from bundle.errors import ImageFormatRefused, ModelNotFound
from bundle.repository import Repository
from service.core.answers import Explanation
from service.core.requests import ImageRequest, Target
from service.engines.engine import open_on_cpu
from service.errors import Draining, InvalidArgument, NoEvidence

LABELS = ("daisy", "tulips", "roses")
EMBEDDED = Path(__file__).parents[3] / "models"


@pytest.fixture
def edge(start_edge):
    return start_edge()


@pytest.fixture
def explained(edge, run):
    """`explained(image, wanted)`"""

    def ask(image: bytes, wanted: int | str | None = None, target: Target | None = None, **options) -> Explanation:
        model = edge.classifier.find(target or Target())
        return run(edge.classifier.explain(model, ImageRequest(image, **options), wanted))

    return ask


def encoded(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def bias(found: Explanation) -> float:
    return found.logit - float(found.evidence.mean())


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(picture=arrays.arrays(np.uint8, (8, 8, 3)), index=st.integers(0, 2))
def test_the_logit_is_the_maps_mean_and_a_bias_that_no_picture_changes(explained, pictures, picture, index) -> None:
    found, another = explained(encoded(picture), index), explained(pictures["daisy"], index)
    assert found.evidence.shape == (4, 4)
    assert found.evidence.dtype == np.float32
    assert bias(found) == pytest.approx(bias(another), abs=1e-4)
    assert found.logit == pytest.approx(float(found.outputs.logits[0, index]))


def test_the_same_holds_for_the_embedded_model() -> None:
    """On its golden pictures, for every class."""
    bundle = Repository(EMBEDDED).open("flowers")
    engine = open_on_cpu(bundle)
    outputs = [engine.run((pixels[np.newaxis],), evidence=True) for pixels in golden.load(bundle).pixels]
    biases = np.array([output.logits[0] - output.evidence[0].mean((1, 2)) for output in outputs])
    assert len(biases) > 10
    assert np.abs(biases - biases[0]).max() < 1e-4
    assert np.ptp(biases[0]) > 0.01
    engine.close()


def test_evidence_lies_where_the_class_is_seen(explained) -> None:
    picture = np.zeros((36, 36, 3), np.uint8)
    picture[:, :18, 0] = picture[:, 18:, 2] = 255  # red on the left, blue on the right
    left, right = (explained(encoded(picture), label).evidence for label in ("daisy", "roses"))
    assert left[:, :2].min() > left[:, 2:].max()
    assert right[:, 2:].min() > right[:, :2].max()


@pytest.mark.parametrize(("wanted", "label"), [(None, "tulips"), (0, "daisy"), ("roses", "roses"), (2, "roses")])
def test_the_class_is_named_by_index_or_label_or_is_the_most_probable(explained, pictures, wanted, label) -> None:
    found = explained(pictures["tulips"], wanted)
    assert (found.explained.label, found.explained.index) == (label, LABELS.index(label))
    assert found.explained.probability == pytest.approx(float(found.outputs.probabilities[0, LABELS.index(label)]))
    assert found.predictions[0].label == "tulips"


def test_an_explanation_is_the_answer_and_more(edge, explained, pictures, run) -> None:
    found = explained(pictures["roses"], "daisy", top_k=2)
    answer = run(edge.classifier.classify(edge.classifier.find(Target()), ImageRequest(pictures["roses"], top_k=2)))
    assert (found.model, found.predictions, found.confident) == (answer.model, answer.predictions, answer.confident)
    assert min(found.timings.decode, found.timings.preprocess, found.timings.inference) > 0


def test_the_drawing_is_of_the_pixels_that_the_model_saw(explained, pictures) -> None:
    image = Image.open(io.BytesIO(explained(pictures["daisy"]).overlay_png))
    assert (image.format, image.size) == ("PNG", (32, 32))


def test_drawings_of_two_classes_can_be_compared(explained) -> None:
    """A class without a chance does not glow, though its own map has a highest place, too."""
    picture = np.zeros((36, 36, 3), np.uint8)
    picture[:, :30, 0] = 255
    picture[:, 30:, 0] = 200
    picture[:, 30:, 2] = 90

    def glow(label: str) -> float:
        drawn = np.asarray(Image.open(io.BytesIO(explained(encoded(picture), label).overlay_png))).astype(int)
        return float(drawn[..., 1].mean())  # the picture itself has no green

    assert glow("daisy") > glow("roses") + 50


@pytest.mark.parametrize(
    ("wanted", "options", "message"),
    [
        ("oak", {}, "'class_label' is 'oak'; expected one of daisy, tulips, roses"),
        (3, {}, "'class_index' is 3; expected 0 to 2"),
        (-1, {}, "'class_index' is -1; expected 0 to 2"),
        (None, {"top_k": -1}, "'top_k' is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(explained, pictures, wanted, options, message) -> None:
    with pytest.raises(InvalidArgument, match=message):
        explained(pictures["daisy"], wanted, **options)


def test_a_model_without_evidence_says_so_before_any_work(start_edge, run, publish_bundle, pictures, tmp_path) -> None:
    publish_bundle(tmp_path, evidence=False)
    edge = start_edge(tmp_path)
    with pytest.raises(NoEvidence, match="flowers/1 gives no evidence maps") as raised:
        run(edge.classifier.explain(edge.classifier.find(Target()), ImageRequest(b"junk")))
    assert raised.value.facts == {"model": "flowers", "version": "1"}


def test_it_fails_as_an_answer_would(edge, explained, pictures) -> None:
    with pytest.raises(ImageFormatRefused):
        explained(b"junk")
    with pytest.raises(ModelNotFound):
        explained(pictures["daisy"], target=Target("trees"))
    edge.classifier.drain()
    with pytest.raises(Draining):
        explained(pictures["daisy"])
