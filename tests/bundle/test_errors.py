"""The tree of errors: drawn whole in its docstring, every leaf one sentence with facts."""

import inspect
from pathlib import Path

import pytest

from anther.errors import AntherError
from bundle import errors

EXAMPLES: list[tuple[AntherError, str]] = [
    (
        errors.ImageTooManyBytes(21_000_000, 20_000_000),
        "the image has 21,000,000 bytes; at most 20,000,000 are allowed",
    ),
    (errors.ImageTooManyPixels(6, 5, (3, 2)), "the image has 3×2 = 6 pixels; at most 5 are allowed"),
    (errors.ImageTooManyPixels(6, 5), "the image has 6 pixels; at most 5 are allowed"),
    (
        errors.ImageAspectRatioRefused((20_000, 100), 100),
        "the image has 20,000×100 pixels; one side may be at most 100 times as long as the other",
    ),
    (errors.ImageFormatRefused("PDF", ["JPEG", "PNG"]), "the data is PDF; allowed formats are JPEG, PNG"),
    (
        errors.ImageModeRefused("F"),
        (
            "the image has pixels of type F; allowed are 1 to 16 bits of grey, palette, RGB and CMYK, "
            "with or without alpha"
        ),
    ),
    (
        errors.ImageUndecodable("PNG", "no end"),
        "the PNG data cannot be decoded (no end); send a whole, undamaged file",
    ),
    (
        errors.ImageTooCostly("takes more than 10 s of a processor"),
        "decoding the image takes more than 10 s of a processor; save it anew with another program, and send that",
    ),
    (errors.ManifestInvalid("labels", 3, "a list"), "manifest field 'labels' is 3; expected a list"),
    (errors.BundleCorrupt(Path("1/model.onnx"), "gone", "a file"), "1/model.onnx: gone; expected a file"),
    (
        errors.ExternalDataRefused(Path("model.onnx")),
        "model.onnx keeps tensors in external files; a bundle holds one self-contained model.onnx",
    ),
    (errors.GoldenMismatch("tiny", "has", "1", "2"), "golden picture 'tiny': has 1; expected 2"),
    (
        errors.PolicyInvalid(Path("flowers/serving.json"), "field 'loaded' is 1; expected true or false"),
        "flowers/serving.json is no serving policy: field 'loaded' is 1; expected true or false; correct or delete it",
    ),
    (
        errors.SignatureMissing(Path("flowers/3.sig")),
        "flowers/3.sig is missing, and only signed versions may serve; sign this one with `anther sign`",
    ),
    (
        errors.SignatureInvalid(Path("flowers/3.sig"), "it is not signed with key 69539e09fd0c2f27"),
        "signature flowers/3.sig is refused: it is not signed with key 69539e09fd0c2f27",
    ),
    (
        errors.SignatureMismatch(Path("flowers/3.sig"), "changed: model.onnx"),
        "flowers/3.sig signs other files than the version has: changed: model.onnx",
    ),
    (errors.ModelNotFound("roses", ["flowers", "birds"]), "no model 'roses'; available: flowers, birds"),
    (errors.ModelNotFound("roses", []), "no model 'roses'; available: none"),
    (errors.VersionNotFound("flowers", 3, [1, 2]), "model 'flowers' has no version 3; available: 1, 2"),
    (errors.VersionNotFound("flowers", 3, []), "model 'flowers' has no version 3; available: none"),
    (errors.NoEarlierVersion(2, [2, 3]), "there is no version before 2 to roll back to; available: 2, 3"),
    (errors.NoEarlierVersion(0, []), "there is no version before 0 to roll back to; available: none"),
    (
        errors.NotPublished(Path("models/flowers"), "No space left on device"),
        (
            "publishing into models/flowers failed (No space left on device); "
            "earlier versions are untouched, so put that right and retry"
        ),
    ),
    (
        errors.PolicyNotWritable(Path("flowers/serving.json"), "Read-only file system"),
        (
            "flowers/serving.json cannot be written (Read-only file system); "
            "the policy is as it was: run this where that folder can be written"
        ),
    ),
]


def every_error() -> dict[str, type[AntherError]]:
    return {
        name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, AntherError)
    }


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda item: type(item).__name__)
def test_each_leaf_is_a_sentence(error: AntherError, text: str) -> None:
    assert str(error) == text
    assert error.facts
    assert all(isinstance(fact, str) for fact in error.facts.values())


def test_every_leaf_has_an_example_here() -> None:
    kinds = every_error().values()
    leaves = {kind for kind in kinds if not any(other is not kind and issubclass(other, kind) for other in kinds)}
    assert leaves == {type(error) for error, _ in EXAMPLES}


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = {line.strip("│├└─ ").split(" ")[0] for line in inspect.getdoc(errors).splitlines()[2:]}
    assert drawn == set(every_error())


@pytest.mark.parametrize("size", [100, 10_000_000])
def test_nothing_from_outside_makes_a_sentence_long(size: int) -> None:
    """Sentences go to logs, and what a file holds may be of any size."""
    text, numbers = "x" * size, [0] * size
    for error in [
        errors.ManifestInvalid(text, numbers, text),
        errors.ManifestInvalid("labels", {text: text}, "a list"),
        errors.BundleCorrupt(Path("model.onnx"), text, text),
    ]:
        assert len(str(error)) < 800
        assert sum(map(len, error.facts.values())) < 800


def test_a_value_may_be_nested_deeper_than_python_recurses() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert "[[[" in str(errors.ManifestInvalid("labels", nested, "a list"))
