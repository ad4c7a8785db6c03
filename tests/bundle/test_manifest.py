"""`manifest.json`: what is written is read again, and nothing that is wrong or was changed is."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import BundleRefused, ManifestInvalid
from bundle.manifest import SCHEMA_VERSION, Calibration, Histogram, Manifest, valid_name
from bundle.preprocessing import Preprocessing
from bundle.repository import MANIFEST, open_bundle

DIGEST = "0" * 64


@pytest.fixture(scope="module")
def bundle(make_bundle, tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("manifest") / "1")


@pytest.fixture(scope="module")
def text(bundle: Path) -> str:
    return (bundle / MANIFEST).read_text()


@pytest.fixture(scope="module")
def manifest(text: str) -> Manifest:
    return Manifest.from_json(text)


def sealed(record: dict[str, Any]) -> str:
    """The text with a digest that is right, so that what is refused is refused for its content."""
    blank = json.dumps({**record, "manifest_sha256": ""}, indent=2)
    digest = hashlib.sha256(blank.encode()).hexdigest()
    return blank.replace('"manifest_sha256": ""', f'"manifest_sha256": "{digest}"')


def at(record: dict[str, Any], field: str) -> tuple[Any, str]:
    """The object that holds a field named `a.b.c`, and its last name."""
    *parents, last = field.split(".")
    for name in parents:
        record = record[name]
    return record, last


def fields(record: dict[str, Any], prefix: str = "") -> list[str]:
    """Every field with a fixed name, nested ones with dots."""
    free = {
        "tolerances",
        "files",
        "provenance.photos",
        "provenance.recipe",
        "provenance.versions",
        "reference.predicted",
    }
    found = []
    for key, value in record.items():
        found.append(prefix + key)
        if isinstance(value, dict) and prefix + key not in free:
            found += fields(value, f"{prefix}{key}.")
    return found


# Round trip


def test_what_is_written_is_read_again(manifest: Manifest, text: str) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.to_json() == text


def test_the_text_is_for_people_too(text: str) -> None:
    assert text.startswith('{\n  "schema_version": 1,\n  "name": "flowers",\n  "labels": [\n    "daisy",\n')
    assert text.endswith("}\n")


LABELS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=2, max_size=5, unique=True
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=NAMES,
    labels=LABELS,
    recipe=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), SCALARS, max_size=4),
    temperature=st.floats(1e-6, 1e6),
    threshold=st.floats(0, 1),
    sizes=st.tuples(st.integers(1, 4096), st.integers(1, 4096)).map(sorted),
    commit=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
def test_any_manifest_survives_the_round_trip(
    manifest: Manifest, name, labels, recipe, temperature, threshold, sizes, commit
) -> None:
    provenance = dataclasses.replace(manifest.provenance, recipe=recipe, git_commit=commit)
    calibration = Calibration(temperature, threshold, 1.0, 0.5)
    drawn = dataclasses.replace(
        manifest,
        name=name,
        labels=tuple(labels),
        calibration=calibration,
        provenance=provenance,
        preprocessing=Preprocessing(resize=sizes[1], crop=sizes[0]),
    )
    assert Manifest.from_json(drawn.to_json()) == drawn


@pytest.mark.parametrize(
    ("versions", "commit", "code"),
    [
        ({"anther": "0.1.0"}, "d4713b9", "anther 0.1.0, commit d4713b9"),
        ({"anther": "0.1.0"}, None, "anther 0.1.0"),
        ({}, "d4713b9", "commit d4713b9"),
        ({}, None, ""),
    ],
)
def test_the_code_is_named_as_far_as_it_is_known(manifest: Manifest, versions, commit, code: str) -> None:
    found = dataclasses.replace(manifest.provenance, versions=versions, git_commit=commit)
    assert found.code == code


def test_a_number_that_json_has_not_cannot_be_written(manifest: Manifest) -> None:
    metrics = dataclasses.replace(manifest.metrics, top1=float("nan"))
    with pytest.raises(ValueError, match="JSON compliant"):
        dataclasses.replace(manifest, metrics=metrics).to_json()


# Changed after publishing


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_no_byte_can_change_unnoticed(bundle: Path, text: str, mask: int, tmp_path: Path) -> None:
    """0x01 makes other digits and letters, 0x20 other case and spaces, 0x80 broken UTF-8."""
    original, copy = text.encode(), tmp_path / MANIFEST
    for index in range(len(original)):
        copy.write_bytes(original[:index] + bytes([original[index] ^ mask]) + original[index + 1 :])
        with pytest.raises(BundleRefused):
            open_bundle(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: text + " ",
        lambda text: " " + text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("daisy", "rose"),
        lambda text: text.replace('"manifest_sha256": "', '"manifest_sha256":  "'),
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(json.loads(text), indent=4),
    ],
)
def test_no_rewriting_goes_unnoticed(text: str, change: Callable[[str], str]) -> None:
    with pytest.raises(ManifestInvalid):
        Manifest.from_json(change(text))


def test_every_truncation_is_refused(text: str) -> None:
    for length in range(len(text)):
        with pytest.raises(ManifestInvalid):
            Manifest.from_json(text[:length])


def test_a_change_is_called_a_change(text: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"field 'manifest_sha256' is .*: the file was changed after publishing"):
        Manifest.from_json(text.replace("daisy", "rose"))


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, None, 3, ["0" * 64]])
def test_a_digest_that_is_none_is_refused(text: str, digest: object) -> None:
    with pytest.raises(ManifestInvalid, match=r"field 'manifest_sha256' is .*; expected a SHA-256 digest of 64"):
        Manifest.from_json(json.dumps({**json.loads(text), "manifest_sha256": digest}, indent=2))


# Wrong content under a right digest


def test_the_helper_seals_as_the_manifest_does(text: str, manifest: Manifest) -> None:
    assert Manifest.from_json(sealed(json.loads(text))) == manifest


def added(kind: type, prefix: str = "") -> set[str]:
    """The fields that were added after the first release, which older manifests lack."""
    hints = get_type_hints(kind)
    found = {prefix + field.name for field in dataclasses.fields(kind) if field.metadata.get("added")}
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            found |= added(hint, f"{prefix}{name}.")
    return found


def test_every_first_field_is_required(text: str) -> None:
    free = {"manifest_sha256", "schema_version"} | added(Manifest)
    names = [name for name in fields(json.loads(text)) if name not in free]
    assert len(names) > 40
    for name in names:
        record = json.loads(text)
        holder, last = at(record, name)
        del holder[last]
        with pytest.raises(ManifestInvalid, match=f"^manifest field '{name}' is None; expected a value: the field is"):
            Manifest.from_json(sealed(record))


def test_a_manifest_from_before_the_added_fields_is_read(text: str, manifest: Manifest) -> None:
    record = json.loads(text)
    for name in added(Manifest):
        holder, last = at(record, name)
        del holder[last]
    assert len(added(Manifest)) > 5
    assert Manifest.from_json(sealed(record)) == manifest


def test_no_unknown_field_is_passed_over(text: str) -> None:
    for prefix in ["", "model.", "preprocessing.", "calibration.", "metrics.", "provenance.", "reference.confidence."]:
        record = json.loads(text)
        holder, last = at(record, prefix + "colour")
        holder[last] = "red"
        with pytest.raises(ManifestInvalid, match=f"^manifest field '{prefix}colour' is 'red'; expected one of the fi"):
            Manifest.from_json(sealed(record))


def test_no_field_takes_another_type(text: str) -> None:
    """A list of lists fits nowhere."""
    for name in fields(json.loads(text)):
        record = json.loads(text)
        holder, last = at(record, name)
        holder[last] = [[[]]]
        with pytest.raises(ManifestInvalid) as refusal:
            Manifest.from_json(json.dumps(record) if name == "manifest_sha256" else sealed(record))
        assert refusal.value.facts["field"].startswith(name)


@pytest.mark.parametrize("version", [0, 2, 99, -1, "1", 1.5, None])
def test_another_schema_version_is_refused_before_anything_else_is_read(version: object) -> None:
    """A newer manifest may look in any way; only its version can be known."""
    with pytest.raises(ManifestInvalid) as refusal:
        Manifest.from_json(sealed({"schema_version": version, "something": "new"}))
    expected = (
        f"manifest field 'schema_version' is {version!r}; expected {SCHEMA_VERSION}, the one that this Anther reads"
    )
    assert str(refusal.value) == expected


@pytest.mark.parametrize("value", [[], "text", 3, None])
def test_a_document_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(ManifestInvalid, match="expected an object"):
        Manifest.from_json(json.dumps(value))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(text: str, constant: str) -> None:
    blank = json.dumps({**json.loads(text), "manifest_sha256": ""}, indent=2).replace(
        '"top1": 1.0', f'"top1": {constant}'
    )
    assert constant in blank
    digest = hashlib.sha256(blank.encode()).hexdigest()
    with pytest.raises(ManifestInvalid):
        Manifest.from_json(blank.replace('"manifest_sha256": ""', f'"manifest_sha256": "{digest}"'))


def test_a_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(ManifestInvalid, match="the key 'name' stands twice"):
        Manifest.from_json(text.replace('"name": "flowers",', '"name": "flowers", "name": "flowers",'))


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
WRONG = [  # field, value, named field, expectation
    ("name", "Flowers", "manifest.json", "a name like 'flowers'"),
    ("name", "../flowers", "manifest.json", "a name like 'flowers'"),
    ("name", "", "manifest.json", "a name like 'flowers'"),
    ("labels", ["one"], "manifest.json", "two or more different labels"),
    ("labels", ["a", "a"], "manifest.json", "two or more different labels"),
    ("labels", ["a", ""], "manifest.json", "two or more different labels"),
    ("labels", ["a", "\ud800"], "labels[1]", "a text of whole characters"),
    ("model.file", "other.onnx", "manifest.json", "the model file 'other.onnx' among files"),
    ("model.precision", "int4", "model.precision", "'fp32' or 'fp16'"),
    ("model.precision", "tf32", "model.precision", "'fp32' or 'fp16'"),
    ("model.opset", -1, "model", "opset from 0 to 9223372036854775807, got -1"),
    ("model.parameters", 2**63, "model", "parameters from 0 to 9223372036854775807, got 9223372036854775808"),
    ("preprocessing.crop", 300, "preprocessing", "0 < crop <= resize <= 4096, got crop 300"),
    ("preprocessing.alpha", "black", "preprocessing.alpha", "'white'"),
    ("preprocessing.interpolation", "bicubic", "preprocessing.interpolation", "'bilinear-antialias'"),
    ("calibration.temperature", 0, "calibration", "a temperature over 0, got 0"),
    ("calibration.temperature", -1, "calibration", "a temperature over 0, got -1"),
    ("calibration.threshold", 1.5, "calibration", "a threshold from 0 to 1, got 1.5"),
    ("calibration.threshold", -0.1, "calibration", "a threshold from 0 to 1, got -0.1"),
    ("metrics.top1_interval", [0.1], "metrics.top1_interval", "a list of 2 values"),
    ("metrics.confusion", [[1.5]], "metrics.confusion[0][0]", "a whole number"),
    ("reference.confidence.counts", [1], "reference.confidence", "one more edge than counts, got 3 and 1"),
    ("reference.confidence.counts", [1, -1], "reference.confidence", "counts from 0 to 9223372036854775807, got"),
    ("reference.confidence.edges", [0, 1, 1], "reference.confidence", "edges that rise, got [0.0, 1.0, 1.0]"),
    ("reference.predicted", {"daisy": -1}, "reference", "counts from 0 to 9223372036854775807, got"),
    (
        "tolerances",
        {CPU: {"int4": 1}},
        "manifest.json",
        f"tolerances of {CPU} for fp32",
    ),
    (
        "tolerances",
        {CPU: {"tf32": 1}},
        "manifest.json",
        f"tolerances of {CPU} for fp32",
    ),
    (
        "tolerances",
        {CPU: {"fp32": 0}},
        "manifest.json",
        "a finite tolerance over 0 for fp32 on CPUEx",
    ),
    (
        "tolerances",
        {CPU: {"fp16": -1}},
        "manifest.json",
        "a finite tolerance over 0 for fp16 on CPU",
    ),
    ("tolerances", {CPU: 1e-4}, f"tolerances.{CPU}", "an object"),
    ("files", {}, "manifest.json", "the model file 'model.onnx' among files"),
]


@pytest.mark.parametrize(("field", "value", "named", "expected"), WRONG, ids=lambda item: ascii(item)[:30])
def test_a_wrong_value_is_named_with_what_was_expected(
    text: str, field: str, value: object, named: str, expected: str
) -> None:
    record = json.loads(text)
    holder, last = at(record, field)
    holder[last] = value
    with pytest.raises(ManifestInvalid) as refusal:
        Manifest.from_json(sealed(record))
    assert refusal.value.facts["field"] == named
    assert refusal.value.facts["expected"].startswith(expected)


def test_each_provider_has_a_tolerance_for_each_precision_and_cuda_may_have_one_for_tf32(text: str) -> None:
    record = json.loads(text)
    record["model"]["precision"] = "fp16"
    record["tolerances"] = {
        CPU: {"fp32": 1e-4, "fp16": 0.05},
        CUDA: {"fp32": 1e-3, "tf32": 1e-2, "fp16": 0.05},
        "SomeExecutionProvider": {},
    }
    found = Manifest.from_json(sealed(record))
    assert (found.model.precision, found.tolerances) == ("fp16", record["tolerances"])


@pytest.mark.parametrize("tolerance", [float("nan"), float("inf")])
def test_no_tolerance_lets_everything_pass(manifest: Manifest, tolerance: float) -> None:
    """Also where it comes from a program, which may hold what JSON cannot."""
    with pytest.raises(ValueError, match=r"a finite tolerance over 0 for fp32 on CPUExecutionProvider, got (nan|inf)"):
        dataclasses.replace(manifest, tolerances={CPU: {"fp32": tolerance}})


ODD_FILES = [
    "",
    ".",
    "..",
    "a/b",
    "/etc/passwd",
    "../up",
    "a\\b",
    "a\0b",
    "\ud800",
    ".hidden",
    "-rf",
    "manifest.json",
    "x" * 300,
    "ü",
    "a\nb",
]


@pytest.mark.parametrize("file", ODD_FILES, ids=ascii)
def test_a_file_name_that_could_lead_elsewhere_is_refused(text: str, file: str) -> None:
    record = json.loads(text)
    record["files"][file] = DIGEST
    with pytest.raises(ManifestInvalid, match=r"plain file names with SHA-256 digests|whole characters"):
        Manifest.from_json(sealed(record))


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "A" * 64])
def test_a_file_without_a_proper_digest_is_refused(text: str, digest: str) -> None:
    record = json.loads(text)
    record["files"]["model.onnx"] = digest
    with pytest.raises(ManifestInvalid, match="plain file names with SHA-256 digests"):
        Manifest.from_json(sealed(record))


# Parts


@pytest.mark.parametrize("name", ["a", "0", "flowers", "flowers-v2", "a.b_c-d", "x" * 64])
def test_names_that_serve_as_folder_and_label(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "_a", "A", "a/b", "a\\b", "a b", "ä", "a\n", "x" * 65, "a\0"]
)
def test_names_that_do_not(name: str) -> None:
    assert not valid_name(name)


def test_a_histogram_has_one_more_edge_than_counts() -> None:
    assert Histogram((0.0, 1.0), (3,)).counts == (3,)
    with pytest.raises(ValueError, match="one more edge than counts, got 1 and 1"):
        Histogram((0.0,), (3,))
