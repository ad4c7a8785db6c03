"""Everything that can be wrong with an image or a bundle, as one tree; each leaf is a sentence.

AntherError
├── ImageRefused                  an image that gets no prediction
│   ├── ImageTooManyBytes
│   ├── ImageTooManyPixels
│   ├── ImageAspectRatioRefused
│   ├── ImageFormatRefused
│   ├── ImageModeRefused
│   ├── ImageUndecodable
│   └── ImageTooCostly
├── BundleRefused                 a version that must not serve
│   ├── ManifestInvalid
│   ├── BundleCorrupt
│   ├── ExternalDataRefused
│   ├── GoldenMismatch
│   ├── PolicyInvalid
│   ├── SignatureMissing
│   ├── SignatureInvalid
│   └── SignatureMismatch
├── ModelNotFound
├── VersionNotFound
├── NoEarlierVersion
├── NotPublished
└── PolicyNotWritable
"""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from anther.errors import AntherError


class ImageRefused(AntherError):
    """An image that the policy in `bundle.preprocessing` does not accept."""

    def at(self, index: int) -> Self:
        """The same refusal, of the image at `index` of several; `facts` has the index too."""
        refusal = type(self).__new__(type(self))
        AntherError.__init__(refusal, f"image {index}: {self}", **self.facts, index=index)
        return refusal


class ImageTooManyBytes(ImageRefused):
    def __init__(self, found: int, limit: int) -> None:
        super().__init__(f"the image has {found:,} bytes; at most {limit:,} are allowed", found=found, limit=limit)


class ImageTooManyPixels(ImageRefused):
    def __init__(self, found: int, limit: int, size: tuple[int, int] | None = None) -> None:
        product = f"{size[0]}×{size[1]} = " if size else ""
        super().__init__(
            f"the image has {product}{found:,} pixels; at most {limit:,} are allowed", found=found, limit=limit
        )


class ImageAspectRatioRefused(ImageRefused):
    def __init__(self, size: tuple[int, int], limit: int) -> None:
        width, height = size
        super().__init__(
            f"the image has {width:,}×{height:,} pixels; one side may be at most {limit} times as long as the other",
            width=width,
            height=height,
            limit=limit,
        )


class ImageFormatRefused(ImageRefused):
    def __init__(self, found: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"the data is {found}; allowed formats are {', '.join(allowed)}", found=found, allowed=",".join(allowed)
        )


class ImageModeRefused(ImageRefused):
    def __init__(self, mode: str) -> None:
        super().__init__(
            f"the image has pixels of type {mode}; allowed are 1 to 16 bits of grey, palette, RGB and CMYK, "
            "with or without alpha",
            mode=mode,
        )


class ImageUndecodable(ImageRefused):
    def __init__(self, format_name: str, reason: str) -> None:
        super().__init__(
            f"the {format_name} data cannot be decoded ({reason}); send a whole, undamaged file",
            format=format_name,
            reason=reason,
        )


class ImageTooCostly(ImageRefused):
    """Its header asks for far more than its pixels explain; or its decoder took more, or died of it."""

    def __init__(self, found: str) -> None:
        super().__init__(f"decoding the image {found}; save it anew with another program, and send that", found=found)


class BundleRefused(AntherError):
    """A bundle that must not serve; the last good version stays."""


class ManifestInvalid(BundleRefused):
    """The manifest does not follow the schema; names the field, its value and what was expected."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        field, shown, expected = _clipped(field, 200), _shown(value), _clipped(expected, 300)
        super().__init__(
            f"manifest field '{field}' is {shown}; expected {expected}", field=field, value=shown, expected=expected
        )


class BundleCorrupt(BundleRefused):
    """A file of the bundle is missing, unexpected or not the one that was published."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        found, expected = _clipped(found, 300), _clipped(expected, 300)
        super().__init__(f"{path}: {found}; expected {expected}", file=path.name, found=found, expected=expected)


class ExternalDataRefused(BundleRefused):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} keeps tensors in external files; a bundle holds one self-contained model.onnx", file=path.name
        )


class GoldenMismatch(BundleRefused):
    """The runtime does not reproduce what was recorded at export."""

    def __init__(self, picture: str, what: str, found: str, expected: str) -> None:
        super().__init__(
            f"golden picture '{picture}': {what} {found}; expected {expected}",
            picture=picture,
            what=what,
            found=found,
            expected=expected,
        )


class PolicyInvalid(BundleRefused):
    """A `serving.json` that does not say which versions serve; what served before stays."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is no serving policy: {reason}; correct or delete it", file=path.name, reason=reason)


class SignatureMissing(BundleRefused):
    """Raised where only signed versions may serve."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is missing, and only signed versions may serve; sign this one with `anther sign`", file=path.name
        )


class SignatureInvalid(BundleRefused):
    """A signature that is damaged, of another version, or of nobody who is trusted."""

    def __init__(self, path: Path, reason: str) -> None:
        reason = _clipped(reason, 300)
        super().__init__(f"signature {path} is refused: {reason}", file=path.name, reason=reason)


class SignatureMismatch(BundleRefused):
    """The version's files are not those that were signed."""

    def __init__(self, path: Path, differences: str) -> None:
        differences = _clipped(differences, 300)
        super().__init__(
            f"{path} signs other files than the version has: {differences}", file=path.name, differences=differences
        )


class ModelNotFound(AntherError):
    def __init__(self, model: str, available: Sequence[str]) -> None:
        known = ", ".join(available) or "none"
        super().__init__(f"no model '{model}'; available: {known}", model=model, available=",".join(available))


class VersionNotFound(AntherError):
    def __init__(self, model: str, version: int, available: Sequence[int]) -> None:
        known = ", ".join(map(str, available)) or "none"
        super().__init__(
            f"model '{model}' has no version {version}; available: {known}",
            model=model,
            version=version,
            available=",".join(map(str, available)),
        )


class NoEarlierVersion(AntherError):
    def __init__(self, current: int, available: Sequence[int]) -> None:
        known = ", ".join(map(str, available)) or "none"
        super().__init__(
            f"there is no version before {current} to roll back to; available: {known}",
            current=current,
            available=",".join(map(str, available)),
        )


class NotPublished(AntherError):
    """The disk did not take the new version."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"publishing into {folder} failed ({reason}); earlier versions are untouched, so put that right and retry",
            folder=folder,
            reason=reason,
        )


class PolicyNotWritable(AntherError):
    def __init__(self, path: Path, reason: str, remedy: str = "run this where that folder can be written") -> None:
        super().__init__(
            f"{path} cannot be written ({reason}); the policy is as it was: {remedy}",
            file=path.name,
            reason=reason,
        )


def _shown(value: object) -> str:
    """A value from outside in at most 80 characters, however large or deep it is."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = shortened.maxlong = 80
    return _clipped(shortened.repr(value), 80)


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
