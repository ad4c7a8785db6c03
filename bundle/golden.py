"""Golden pictures: synthetic images, one for each cause of skew between training and service.

They are drawn at export and stored as encoded bytes with the pixels and logits of training. Every runtime replays them
before it may answer: the pixels must be equal, and the logits within the manifest's tolerance.
"""

import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from anther.errors import AntherError
from bundle.errors import BundleCorrupt, GoldenMismatch
from bundle.precision import VariantPrecision
from bundle.preprocessing import Preprocessing
from bundle.repository import GOLDEN, Bundle

Infer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""uint8 [N, H, W, 3] pixels to float32 [N, C] logits."""

_ARRAYS = {  # name in the archive → type and number of dimensions
    "names": (np.str_, 1),
    "lengths": (np.int64, 1),
    "encoded": (np.uint8, 1),
    "pixels": (np.uint8, 4),
    "logits": (np.float32, 2),
}
_LOGITS_IN = {precision: f"logits_{precision}" for precision in get_args(VariantPrecision)}  # there for each variant
_MAX_PICTURES, _MAX_ENCODED_BYTES = 64, 2**26  # what `load` takes: four times what `draw` draws, and 64 MiB of files


@dataclass(frozen=True)
class Golden:
    """Encoded pictures with the pixels uint8 [K, H, W, 3] and logits float32 [K, C] that training recorded.

    `variants` has the logits of the same model in other precisions, as ONNX Runtime gave them on a CPU.
    """

    names: tuple[str, ...]
    encoded: tuple[bytes, ...]
    pixels: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    variants: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def of(self, precision: str) -> "Golden":
        """The same pictures with the logits of this precision: the primary model's where no variant has it."""
        return dataclasses.replace(self, logits=self.variants.get(precision, self.logits))

    def with_variant(self, precision: str, logits: npt.NDArray[np.float32]) -> "Golden":
        """The same pictures, with the logits [K, C] of one more precision."""
        return dataclasses.replace(self, variants={**self.variants, precision: logits})

    def to_bytes(self) -> bytes:
        """A NumPy `.npz` archive without pickled objects."""
        buffer = io.BytesIO()
        lengths = np.array([len(data) for data in self.encoded], np.int64)
        content = np.frombuffer(b"".join(self.encoded), np.uint8)
        variants: dict[str, Any] = {_LOGITS_IN[precision]: logits for precision, logits in self.variants.items()}
        np.savez_compressed(
            buffer,
            names=np.array(self.names),
            lengths=lengths,
            encoded=content,
            pixels=self.pixels,
            logits=self.logits,
            **variants,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, largest: int = 2**28) -> "Golden":
        """Read what `to_bytes` wrote. Raises `ValueError` on anything else, and on over `largest` bytes of arrays."""
        try:
            _check_sizes(data, largest)
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                names, lengths, content, pixels, logits = (archive[key] for key in _ARRAYS)
                variants = {precision: archive[key] for precision, key in _LOGITS_IN.items() if key in archive}
        except Exception as exc:  # NumPy, zipfile and zlib have a dozen ways of saying it
            raise ValueError(str(exc) or type(exc).__name__) from exc
        for outputs in (logits, *variants.values()):
            _check(names, lengths, content, pixels, outputs)
        ends = np.cumsum(lengths).tolist()
        encoded = tuple(content[start:end].tobytes() for start, end in zip([0, *ends], ends, strict=False))
        return cls(tuple(names.tolist()), encoded, pixels, logits, variants)


def _check_sizes(data: bytes, largest: int) -> None:
    """Check sizes before unpacking: a kilobyte of deflate may hold a megabyte of zeros, and a header may lie.

    The sizes in the archive's directory are reliable, since zipfile unpacks no more of a file than they say.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = archive.infolist()
        found = {file.filename.removesuffix(".npy") for file in files if file.filename.endswith(".npy")}
        if len(found) != len(files) or found - {*_LOGITS_IN.values()} != _ARRAYS.keys():
            raise ValueError(f"{len(files)} files in the archive instead of {', '.join(_ARRAYS)}")
        if (total := sum(file.file_size for file in files)) > largest:
            raise ValueError(f"it unpacks to {total:,} bytes, more than the {largest:,} that are read")
        for file in files:
            with archive.open(file) as opened:
                _check_header(opened, file.file_size)


def _check_header(file: IO[bytes], size: int) -> None:
    """NumPy allocates what the header claims before it reads a value."""
    if (version := np.lib.format.read_magic(file)) != (1, 0):
        raise ValueError(f"an array in format {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.itemsize * math.prod(shape) > size:
        raise ValueError(f"an array of shape {shape} in {size:,} bytes")


def _check(*arrays: npt.NDArray[Any]) -> None:
    """Raises `ValueError` where an array is of another kind than `to_bytes` writes, or they do not fit together."""
    for array, (name, (kind, dimensions)) in zip(arrays, _ARRAYS.items(), strict=True):
        if not np.issubdtype(array.dtype, kind) or array.ndim != dimensions:
            raise ValueError(f"'{name}' is {array.dtype} of shape {array.shape}")
    names, lengths, content, pixels, logits = arrays
    if not 0 < len(names) == len(lengths) == len(pixels) == len(logits) or logits.size == 0:
        raise ValueError(f"{len(names)} names, {len(lengths)} lengths, pixels {pixels.shape}, logits {logits.shape}")
    if lengths.min() < 0 or lengths.sum() != len(content):
        raise ValueError(f"lengths {lengths.tolist()} of {len(content)} bytes")


def record(preprocessing: Preprocessing, infer: Infer) -> Golden:
    """Draw the pictures, and record the pixels and logits that this code and this model give."""
    pictures = draw()
    pixels = np.stack([preprocessing(data) for data in pictures.values()])
    return Golden(tuple(pictures), tuple(pictures.values()), pixels, infer(pixels))


def replay(golden: Golden, preprocessing: Preprocessing, infer: Infer, tolerance: float) -> float:
    """Put every picture through the caller's own decoder and engine, one at a time, as requests are.

    Returns the largest absolute difference of a logit. Raises `GoldenMismatch` where a pixel differs at all or a
    logit by more than `tolerance`.
    """
    largest = 0.0
    for name, data, pixels, logits in zip(golden.names, golden.encoded, golden.pixels, golden.logits, strict=True):
        largest = max(
            largest, _replay_one(name, _preprocess(name, data, preprocessing), pixels, logits, infer, tolerance)
        )
    return largest


def _preprocess(name: str, data: bytes, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    try:
        return preprocessing(data)
    except AntherError as exc:
        raise GoldenMismatch(name, "was refused:", str(exc), "the pixels recorded at export") from exc


def _replay_one(
    name: str,
    found: npt.NDArray[np.uint8],
    pixels: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
    infer: Infer,
    tolerance: float,
) -> float:
    if found.shape != pixels.shape:
        raise GoldenMismatch(name, "has pixels of shape", str(found.shape), str(pixels.shape))
    if not np.array_equal(found, pixels):
        worst = int(np.abs(found.astype(int) - pixels.astype(int)).max())
        share = float((found != pixels).mean())
        raise GoldenMismatch(name, "differs in", f"{share:.2%} of its pixel values, by up to {worst}/255", "none")
    answer = infer(found[np.newaxis])
    if answer.shape != (1, *logits.shape):
        raise GoldenMismatch(name, "has logits of shape", str(answer.shape), str((1, *logits.shape)))
    difference = float(np.abs(answer - logits).max())
    if not difference <= tolerance:  # a NaN is over every tolerance
        raise GoldenMismatch(name, "has a logit off by", f"{difference:.2e}", f"at most {tolerance:.2e}")
    return difference


def load(bundle: Bundle) -> Golden:
    """The golden pictures of an opened bundle. Raises `BundleCorrupt`."""
    path, data = bundle.path / GOLDEN, bundle.read(GOLDEN)
    largest = _MAX_ENCODED_BYTES + _MAX_PICTURES * 3 * bundle.manifest.preprocessing.crop**2
    try:
        golden = Golden.from_bytes(data, largest)
    except ValueError as exc:
        raise BundleCorrupt(path, f"unreadable ({exc})", "golden pictures written by Anther") from exc
    for precision in (variant.precision for variant in bundle.manifest.variants):
        if precision not in golden.variants:
            raise BundleCorrupt(path, f"no logits in {precision}", "some for each precision in the manifest")
    labels = len(bundle.manifest.labels)
    for logits in (golden.logits, *golden.variants.values()):
        if logits.shape[1] != labels:
            found = f"it has {logits.shape[1]} logits a picture for {labels} labels"
            raise BundleCorrupt(path, found, "one for each label")
    return golden


def draw() -> dict[str, bytes]:
    """Name → encoded picture. The same pictures for the same Pillow and NumPy; no photo is involved."""
    scene = _scene(500, 375)
    palette = scene.resize((320, 240)).quantize(64)
    return {
        "jpeg-420": _encode(scene, "JPEG", quality=85, subsampling="4:2:0"),
        "jpeg-444-progressive": _encode(scene, "JPEG", quality=95, subsampling="4:4:4", progressive=True),
        "jpeg-grey": _encode(scene.convert("L"), "JPEG", quality=90),
        "jpeg-cmyk-adobe": _encode(scene.convert("CMYK"), "JPEG", quality=90),
        "jpeg-cmyk-plain": _without_adobe_marker(_encode(scene.convert("CMYK"), "JPEG", quality=90)),
        "jpeg-exif-rotated": _encode(scene, "JPEG", quality=85, exif=_orientation(6)),
        "png-alpha": _encode(_with_alpha(scene), "PNG"),
        "png-palette-transparent": _encode(palette, "PNG", transparency=3),
        "png-grey16": _encode(_grey16(), "PNG"),
        "webp": _encode(scene, "WEBP", quality=80),
        "gif-animated": _animation(scene),
        "tiff-lzw": _encode(scene.resize((150, 200)), "TIFF", compression="tiff_lzw"),
        "very-wide": _encode(_scene(1600, 60), "JPEG", quality=85),
        "very-tall": _encode(_scene(300, 900), "JPEG", quality=85),
        "tiny": _encode(_scene(64, 64).resize((3, 2)), "PNG"),
        "large": _encode(_scene(2600, 1950), "JPEG", quality=60),
    }


def _scene(width: int, height: int) -> Image.Image:
    """Gradients, discs and fine grain, since codecs treat smooth areas, edges and detail differently."""
    y, x = np.mgrid[0:height, 0:width]
    wave = [np.sin(x / width * 7 + phase) + np.cos(y / height * 5 - phase) for phase in (0.0, 2.1, 4.2)]
    grain = np.random.default_rng(20).integers(-12, 13, (height, width, 1))
    base = np.clip(np.stack(wave, axis=-1) * 60 + 128 + grain, 0, 255).astype(np.uint8)
    picture = Image.fromarray(base)
    pen = ImageDraw.Draw(picture)
    for index, colour in enumerate([(250, 210, 20), (200, 20, 60), (245, 245, 240), (40, 120, 40)]):
        radius = min(width, height) / 5
        cx, cy = width * (index + 0.7) / 4.4, height * (0.35 + 0.1 * (index % 3))
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=colour, outline=(0, 0, 0))
    return picture


def _encode(picture: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def _orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def _without_adobe_marker(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    return data[:start] + data[start + 2 + length :]


def _with_alpha(scene: Image.Image) -> Image.Image:
    fade = Image.linear_gradient("L").resize(scene.size)
    picture = scene.copy()
    picture.putalpha(fade)
    return picture.resize((400, 300))


def _grey16() -> Image.Image:
    y, x = np.mgrid[0:300, 0:260]
    return Image.fromarray(((x * 65535 // 259 + y * 37) % 65536).astype(np.uint16))


def _animation(scene: Image.Image) -> bytes:
    first = scene.resize((240, 180)).quantize(128)
    return _encode(first, "GIF", save_all=True, append_images=[Image.new("P", first.size, 0)], duration=100)
