"""Which version of a model answers a request: by number, by label, or by the canary's share of the requests."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bundle.errors import VersionNotFound
from service.errors import CanaryNotFound, InvalidArgument
from service.versions.loader import LiveModel

STABLE, CANARY, SHADOW = "stable", "canary", "shadow"


@dataclass(frozen=True, slots=True)
class Part:
    """A version and the share of the requests, over 0 and at most 1, that it gets."""

    model: LiveModel
    share: float


@dataclass(frozen=True, slots=True)
class Route:
    """The versions of a model that serve at one moment. Immutable: a switch replaces the whole route."""

    stable: LiveModel
    canary: Part | None = None
    shadow: Part | None = None
    others: tuple[LiveModel, ...] = ()
    answering: Mapping[int, LiveModel] = field(init=False)
    """Every version that answers requests, by number; a shadow does not."""

    def __post_init__(self) -> None:
        canary = [] if self.canary is None else [self.canary.model]
        models = sorted({model.version: model for model in (*self.others, *canary, self.stable)}.items())
        object.__setattr__(self, "answering", MappingProxyType(dict(models)))

    def choose(self, version: int = 0, label: str = "", request_id: str = "") -> LiveModel:
        """A number beats a label; without either, the canary answers the share of ids that `falls_into` gives it.

        Raises `VersionNotFound`, `CanaryNotFound`, or `InvalidArgument` where the label is an unknown one.
        """
        if version:
            return self._numbered(version)
        if label:
            return self._labelled(label)
        if self.canary is not None and falls_into(self.canary.share, CANARY, request_id):
            return self.canary.model
        return self.stable

    def shadowing(self, request_id: str) -> LiveModel | None:
        """The version that gets a copy of this request; None without one, or where its share leaves this out."""
        if self.shadow is None or not falls_into(self.shadow.share, SHADOW, request_id):
            return None
        return self.shadow.model

    def __str__(self) -> str:
        parts = [f"{what} {part.model.version} gets {part.share:.4g} of the requests"
                 for what, part in ((CANARY, self.canary), (SHADOW, self.shadow)) if part is not None]  # fmt: skip
        others = ", ".join(str(version) for version in self.answering if version != self.stable.version)
        return "; ".join((f"stable {self.stable.version}", *parts, *([f"by number {others}"] if others else [])))

    def models(self) -> list[LiveModel]:
        """All versions that are held in memory, the shadow included."""
        shadow = [] if self.shadow is None else [self.shadow.model]
        return list({id(model): model for model in (*self.answering.values(), *shadow)}.values())

    def _numbered(self, version: int) -> LiveModel:
        model = self.answering.get(version)
        if model is None:
            raise VersionNotFound(self.stable.name, version, list(self.answering))
        return model

    def _labelled(self, label: str) -> LiveModel:
        if label == STABLE:
            return self.stable
        if label != CANARY:
            raise InvalidArgument("label", label, f"'{STABLE}', '{CANARY}', or nothing")
        if self.canary is None:
            raise CanaryNotFound(self.stable.name, self.stable.version)
        return self.canary.model


def falls_into(share: float, purpose: str, request_id: str) -> bool:
    """Whether a request belongs to a share: the first 8 bytes of SHA-256("<purpose>:<id>"), UTF-8, read as a big-endian
    number, lie below share × 2⁶⁴.

    The result for an id is the same in every process and language, and an id stays in when the share grows. The
    purpose, 'canary' or 'shadow', makes the two shares independent. A request without an id gets a random place.
    """
    if not request_id:
        return random.getrandbits(64) < share * 2**64
    digest = hashlib.sha256(f"{purpose}:{request_id}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
