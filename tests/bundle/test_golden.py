"""Golden pictures: drawn alike every time, recorded once, and replayed to the last pixel and within the tolerance."""

import dataclasses
import io
import json
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anther.errors import AntherError
from bundle import golden
from bundle.errors import BundleCorrupt, GoldenMismatch
from bundle.golden import Golden
from bundle.manifest import Manifest
from bundle.preprocessing import Preprocessing
from bundle.repository import GOLDEN, MANIFEST, Bundle, open_bundle, sha256_of

PREPROCESSING = Preprocessing(resize=36, crop=32)
WEIGHTS = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
Infer = Callable[[np.ndarray], np.ndarray]


def infer(pixels: np.ndarray) -> np.ndarray:
    """A linear model on the mean colour: uint8 [N, H, W, 3] to float32 [N, 4].

    A row alone and in a batch must be alike on every processor, which no matrix product promises; these sums do.
    """
    colours = pixels.mean(axis=(1, 2), dtype=np.float64) / 255
    return sum(colours[:, [channel]] * WEIGHTS[channel] for channel in range(3)).astype(np.float32)


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return golden.draw()


@pytest.fixture(scope="module")
def recorded() -> Golden:
    return golden.record(PREPROCESSING, infer)


def changed(recorded: Golden, **arrays: np.ndarray) -> Golden:
    return dataclasses.replace(recorded, **arrays)


# Drawing


def test_the_pictures_are_the_same_on_every_draw(pictures: dict[str, bytes]) -> None:
    assert golden.draw() == pictures


def test_there_is_one_picture_for_every_trap(pictures: dict[str, bytes]) -> None:
    """What each promises by its name, as Pillow alone reads it."""
    images = {name: Image.open(io.BytesIO(data)) for name, data in pictures.items()}
    assert {image.format for image in images.values()} == {"JPEG", "PNG", "WEBP", "GIF", "TIFF"}
    assert images["jpeg-444-progressive"].info["progressive"] == 1
    assert images["jpeg-grey"].mode == "L"
    assert (images["jpeg-cmyk-adobe"].mode, "adobe" in images["jpeg-cmyk-adobe"].info) == ("CMYK", True)
    assert (images["jpeg-cmyk-plain"].mode, "adobe" in images["jpeg-cmyk-plain"].info) == ("CMYK", False)
    assert images["jpeg-exif-rotated"].getexif()[0x0112] == 6
    assert images["png-alpha"].mode == "RGBA"
    assert (images["png-palette-transparent"].mode, images["png-palette-transparent"].info["transparency"]) == ("P", 3)
    assert images["png-grey16"].mode == "I;16"
    assert images["gif-animated"].n_frames == 2
    assert images["tiff-lzw"].info["compression"] == "tiff_lzw"
    assert images["very-wide"].width > 20 * images["very-wide"].height
    assert images["very-tall"].height - 768 > 2 * (images["very-tall"].width - 256) > 0, "the vertical pass comes first"
    assert max(images["tiny"].size) < 4
    assert images["large"].width * images["large"].height > 5_000_000


def test_the_pictures_are_small_enough_to_travel(pictures: dict[str, bytes]) -> None:
    assert sum(map(len, pictures.values())) < 2_000_000


# Recording and replaying


def test_what_was_recorded_is_replayed_exactly(recorded: Golden, pictures: dict[str, bytes]) -> None:
    assert recorded.names == tuple(pictures)
    assert recorded.encoded == tuple(pictures.values())
    assert (recorded.pixels.dtype, recorded.pixels.shape) == (np.uint8, (len(pictures), 32, 32, 3))
    assert (recorded.logits.dtype, recorded.logits.shape) == (np.float32, (len(pictures), 4))
    assert golden.replay(recorded, PREPROCESSING, infer, tolerance=0.0) == 0.0


def test_pictures_are_replayed_one_at_a_time_as_requests_come(recorded: Golden) -> None:
    batches = []

    def counting(pixels: np.ndarray) -> np.ndarray:
        batches.append(pixels.shape)
        return infer(pixels)

    golden.replay(recorded, PREPROCESSING, counting, tolerance=1e-6)
    assert batches == [(1, 32, 32, 3)] * len(recorded.names)


def test_the_largest_difference_is_returned(recorded: Golden) -> None:
    offsets = iter(np.linspace(-0.05, 0.02, len(recorded.names), dtype=np.float32))
    found = golden.replay(recorded, PREPROCESSING, lambda pixels: infer(pixels) + next(offsets), tolerance=0.1)
    assert found == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize("index", [0, 5, -1])
def test_one_pixel_off_by_one_is_refused(recorded: Golden, index: int) -> None:
    pixels = recorded.pixels.copy()
    pixels[index, 3, 4, 1] ^= 1
    expected = rf"'{recorded.names[index]}': differs in 0.03% of its pixel values, by up to 1/255; expected none"
    with pytest.raises(GoldenMismatch, match=expected):
        golden.replay(changed(recorded, pixels=pixels), PREPROCESSING, infer, tolerance=1e9)


def test_another_preprocessing_is_refused(recorded: Golden) -> None:
    with pytest.raises(GoldenMismatch, match="differs in"):
        golden.replay(recorded, Preprocessing(resize=40, crop=32), infer, tolerance=1e9)
    with pytest.raises(GoldenMismatch, match=r"has pixels of shape \(31, 31, 3\); expected \(32, 32, 3\)"):
        golden.replay(recorded, Preprocessing(resize=36, crop=31), infer, tolerance=1e9)


@pytest.mark.parametrize("index", [0, 5, -1])
@pytest.mark.parametrize("offset", [0.01, -0.01])
def test_a_logit_beyond_the_tolerance_is_refused(recorded: Golden, index: int, offset: float) -> None:
    logits = recorded.logits.copy()
    logits[index, 2] += offset
    expected = f"'{recorded.names[index]}': has a logit off by 1.00e-02; expected at most 9.00e-03"
    with pytest.raises(GoldenMismatch, match=expected):
        golden.replay(changed(recorded, logits=logits), PREPROCESSING, infer, tolerance=0.009)
    assert golden.replay(changed(recorded, logits=logits), PREPROCESSING, infer, 0.011) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_no_number_is_refused_by_every_tolerance(recorded: Golden, value: float) -> None:
    def broken(pixels: np.ndarray) -> np.ndarray:
        answer = infer(pixels)
        answer[0, 1] = value
        return answer

    logits = recorded.logits.copy()
    logits[0, 0] = value
    for runtime, record in [(broken, recorded), (infer, changed(recorded, logits=logits))]:
        with pytest.raises(GoldenMismatch, match=r"has a logit off by (nan|inf)"):
            golden.replay(record, PREPROCESSING, runtime, tolerance=1e9)


def test_a_nan_tolerance_lets_nothing_pass(recorded: Golden) -> None:
    with pytest.raises(GoldenMismatch):
        golden.replay(recorded, PREPROCESSING, infer, tolerance=float("nan"))


@pytest.mark.parametrize(
    "runtime",
    [
        lambda pixels: infer(pixels)[:, :3],
        lambda pixels: np.zeros((1, 5), np.float32),
        lambda pixels: infer(pixels)[0],
        lambda pixels: infer(pixels)[:0],
        lambda pixels: infer(pixels).repeat(2, axis=0),
    ],
    ids=["fewer classes", "more classes", "no batch", "no row", "two rows"],
)
def test_logits_of_another_shape_are_refused(recorded: Golden, runtime: Infer) -> None:
    with pytest.raises(GoldenMismatch, match=r"has logits of shape \(.*\); expected \(1, 4\)"):
        golden.replay(recorded, PREPROCESSING, runtime, tolerance=1e9)


def test_a_picture_that_the_runtime_refuses_is_a_mismatch(recorded: Golden) -> None:
    encoded = (b"not a picture", *recorded.encoded[1:])
    with pytest.raises(GoldenMismatch, match="'jpeg-420': was refused: the data is of an unknown format"):
        golden.replay(dataclasses.replace(recorded, encoded=encoded), PREPROCESSING, infer, tolerance=1e9)


# On disk


def test_the_archive_gives_back_what_was_recorded(recorded: Golden) -> None:
    found = Golden.from_bytes(recorded.to_bytes())
    assert (found.names, found.encoded) == (recorded.names, recorded.encoded)
    np.testing.assert_array_equal(found.pixels, recorded.pixels)
    np.testing.assert_array_equal(found.logits, recorded.logits)


def archive(recorded: Golden, **arrays: object) -> bytes:
    """The archive with some arrays replaced, or left out where None."""
    with np.load(io.BytesIO(recorded.to_bytes())) as found:
        content = {**found, **arrays}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in content.items() if array is not None})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "arrays",
    [
        {"names": None},
        {"lengths": None},
        {"encoded": None},
        {"pixels": None},
        {"logits": None},
        {"names": np.array([1, 2, 3])},
        {"names": np.array(["one"])},
        {"names": np.array("one")},
        {"lengths": np.array([1, 2])},
        {"lengths": np.full(16, -1)},
        {"lengths": np.full(16, 2**60)},
        {"lengths": np.zeros(16)},
        {"encoded": np.zeros(10, np.uint8)},
        {"encoded": np.zeros(10, np.float32)},
        {"pixels": np.zeros((16, 32, 32, 3))},
        {"pixels": np.zeros((16, 32, 32), np.uint8)},
        {"pixels": np.zeros((15, 32, 32, 3), np.uint8)},
        {"logits": np.zeros((16, 4))},
        {"logits": np.zeros((16,), np.float32)},
        {"logits": np.zeros((16, 0), np.float32)},
        {"logits": np.zeros((15, 4), np.float32)},
    ],
    ids=lambda arrays: next(f"{name}-{np.shape(array)}" for name, array in arrays.items()),
)
def test_an_archive_whose_arrays_do_not_fit_is_refused(recorded: Golden, arrays: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Golden.from_bytes(archive(recorded, **arrays))


def test_an_archive_of_no_pictures_proves_nothing_and_is_refused() -> None:
    nothing = Golden((), (), np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 2), np.float32))
    with pytest.raises(ValueError, match=r"'names' is|0 names"):
        Golden.from_bytes(nothing.to_bytes())


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"not an archive",
        npy(np.zeros(3)),
        npy(np.array([{}], object)),
        zipped(),
        zipped(names=b"garbage"),
        zipped(names=npy(np.array([{}], object))),
    ],
    ids=["empty", "two bytes", "text", "one array", "one pickle", "empty archive", "garbage inside", "pickle inside"],
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Golden.from_bytes(data)


def test_an_archive_of_other_files_is_refused(recorded: Golden) -> None:
    with pytest.raises(ValueError, match="6 files in the archive instead of names, lengths, encoded, pixels, logits"):
        Golden.from_bytes(archive(recorded, more=np.zeros(3)))


def bomb(size: int, claimed: int | None = None) -> bytes:
    """Zeros that deflate packs a thousandfold, as the pixels of no picture; the array's header may claim fewer."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("names", "lengths", "encoded", "logits"):
            packed.writestr(f"{name}.npy", npy(np.zeros(0)))
        with packed.open("pixels.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, header("|u1", (claimed or size,)))
            for _ in range(0, size, 2**20):
                file.write(bytes(2**20))
    return buffer.getvalue()


def header(descr: str, shape: tuple[int, ...]) -> dict[str, object]:
    return {"descr": descr, "fortran_order": False, "shape": shape}


def peak_of_reading(data: bytes, **options: int) -> int:
    """Most bytes that Python and NumPy held while `data` was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r".+"):
            Golden.from_bytes(data, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused_unopened() -> None:
    data = bomb(2**26)
    assert len(data) < 2**17
    with pytest.raises(ValueError, match=r"it unpacks to 67,\d+,\d+ bytes, more than the 1,000,000 that are read"):
        Golden.from_bytes(data, largest=1_000_000)
    assert peak_of_reading(data, largest=1_000_000) < 2**20


def test_an_archive_that_understates_its_size_unpacks_to_no_more_than_it_says() -> None:
    """The directory at the end and the array's header say 1 KiB, the data go on for 64 MiB."""
    data = bomb(2**26, claimed=800)
    place = data.rindex(b"PK\x01\x02")
    assert b"pixels" in data[place:]
    forged = data[: place + 24] + (1024).to_bytes(4, "little") + data[place + 28 :]
    assert peak_of_reading(forged, largest=1_000_000) < 2**20


@pytest.mark.parametrize("shape", [(2**40,), (2**62, 2**62), (2**20, 2**20), (10**30,)])
def test_a_header_that_claims_more_than_there_is_gets_no_memory(shape: tuple[int, ...]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header("|u1", shape))
    claims = {name: npy(np.zeros(0)) for name in ("names", "lengths", "encoded", "logits")}
    data = zipped(**claims, pixels=buffer.getvalue())
    with pytest.raises(ValueError, match=r"an array of shape \(\d+.*\) in \d+ bytes"):
        Golden.from_bytes(data)
    assert peak_of_reading(data) < 2**20


def test_an_array_in_another_format_is_refused() -> None:
    """`to_bytes` writes format 1.0; what only a later one can express is not in golden pictures."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_2_0(buffer, header("|u1", (0,)))
    arrays = dict.fromkeys(("names", "lengths", "encoded", "pixels", "logits"), buffer.getvalue())
    with pytest.raises(ValueError, match=r"an array in format \(2, 0\)"):
        Golden.from_bytes(zipped(**arrays))


def test_pickled_objects_are_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = zipped(**dict.fromkeys(("names", "lengths", "encoded", "pixels", "logits"), npy(np.array([Trap()], object))))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        Golden.from_bytes(trap)
    assert not (tmp_path / "sprung").exists()


def test_any_damage_gives_the_same_pictures_or_a_value_error() -> None:
    small = Golden(("a", "b"), (b"one", b"three"), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3), np.float32))
    original, generator, refused = small.to_bytes(), random.Random(0), 0
    for _ in range(1500):
        data = bytearray(original)
        for _ in range(generator.choice([1, 2, 8])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            Golden.from_bytes(bytes(data[: generator.choice([len(data), generator.randrange(len(data))])]))
        except ValueError:
            refused += 1
    assert refused > 750


def rewritten(bundle: Path, data: bytes) -> Bundle:
    """The bundle with another golden.npz under a right digest."""
    (bundle / GOLDEN).write_bytes(data)
    manifest = Manifest.from_json((bundle / MANIFEST).read_text())
    files = {**manifest.files, GOLDEN: sha256_of(bundle / GOLDEN)}
    (bundle / MANIFEST).write_text(dataclasses.replace(manifest, files=files).to_json())
    return open_bundle(bundle)


def test_the_golden_pictures_of_a_bundle_are_loaded(make_bundle, tmp_path: Path) -> None:
    found = golden.load(open_bundle(make_bundle(tmp_path / "1")))
    assert found.names == tuple(golden.draw())
    assert found.logits.shape == (len(found.names), 3)


def test_unreadable_golden_pictures_make_the_bundle_corrupt(make_bundle, tmp_path: Path) -> None:
    bundle = rewritten(make_bundle(tmp_path / "1"), b"not an archive")
    with pytest.raises(
        BundleCorrupt, match=r"golden.npz: unreadable \(.*\); expected golden pictures written by Anther"
    ):
        golden.load(bundle)


def test_golden_pictures_of_another_number_of_classes_make_the_bundle_corrupt(make_bundle, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "1")
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    labels = (*manifest.labels, "sunflowers")
    (folder / MANIFEST).write_text(dataclasses.replace(manifest, labels=labels).to_json())
    expected = r"golden\.npz: it has 3 logits a picture for 4 labels; expected one for each"
    with pytest.raises(BundleCorrupt, match=expected):
        golden.load(open_bundle(folder))


def test_golden_pictures_that_would_fill_the_memory_make_the_bundle_corrupt(make_bundle, tmp_path: Path) -> None:
    """64 pictures of the size that the manifest names, and 64 MiB of files, are the most that are unpacked."""
    bundle = rewritten(make_bundle(tmp_path / "1"), bomb(2**26 + 2**20))
    with pytest.raises(BundleCorrupt, match=r"it unpacks to 68,.* bytes, more than the 67,305,472 that are read"):
        golden.load(bundle)


def test_golden_pictures_changed_after_opening_make_the_bundle_corrupt(make_bundle, tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "1"))
    (bundle.path / GOLDEN).write_bytes(b"changed")
    with pytest.raises(BundleCorrupt, match="SHA-256"):
        golden.load(bundle)


def test_a_bundle_without_golden_pictures_is_refused_where_they_are_needed(make_bundle, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "1")
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    files = {name: digest for name, digest in manifest.files.items() if name != GOLDEN}
    (folder / MANIFEST).write_text(dataclasses.replace(manifest, files=files).to_json())
    (folder / GOLDEN).unlink()
    with pytest.raises(AntherError, match=r"golden\.npz: not named in the manifest"):
        golden.load(open_bundle(folder))
    assert GOLDEN not in json.loads((folder / MANIFEST).read_text())["files"]
