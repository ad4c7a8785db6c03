"""From what serves to what the folder and its policy ask for, one model at a time.

Whatever is missing is loaded while the old versions serve; whatever fails is noted, and the last good version stays.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bundle.errors import BundleRefused, ModelNotFound, PolicyInvalid, VersionNotFound
from bundle.policy import ServingPolicy, Share, read_policy
from bundle.repository import Repository
from service.versions import fingerprint
from service.versions.fingerprint import Fingerprint
from service.versions.loader import LiveModel
from service.versions.routes import Part, Route

log = logging.getLogger(__name__)

Load = Callable[[str, int], LiveModel]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version does not serve, and the files that it was found in."""

    reason: str
    files: Fingerprint


@dataclass(frozen=True, slots=True)
class Change:
    """What one look at a model's folder led to."""

    name: str
    serves: bool
    loaded: tuple[LiveModel, ...]  # came into service
    retired: tuple[LiveModel, ...]  # get no new requests; those in flight finish on them
    refused: Mapping[int, str]  # failed their checks this time: version → why
    cleared: tuple[int, ...]  # were refused earlier, and are good or gone now

    @property
    def happened(self) -> bool:
        return bool(self.loaded or self.retired or self.refused or self.cleared)


class Keeper:
    """Keeps one model in service."""

    def __init__(self, name: str, repository: Repository, load: Load) -> None:
        self.name = name
        self.route: Route | None = None
        self.policy = ServingPolicy()  # the last that could be read
        self.policy_error = ""  # why a newer one could not
        self.refused: dict[int, Refusal] = {}
        self._folder = repository.root / name
        self._repository = repository
        self._load = load
        self._live: dict[int, tuple[LiveModel, Fingerprint]] = {}

    @property
    def gone(self) -> bool:
        return not self._folder.is_dir()

    def look(self, again: bool = False) -> Change:
        """Bring `route` to what the folder asks for. `again` tries refused versions once more, changed or not.

        Raises what is no fault of a bundle, such as a missing device; `route` is then as before.
        """
        before, refused = self.route, self.refused
        self.refused = {} if again else dict(refused)
        self._read_policy()
        self.route = None if self.gone or not self.policy.loaded else self._next_route()
        models = [] if self.route is None else self.route.models()
        self._live = {model.version: self._live[model.version] for model in models}
        kept = {version: why for version, why in self.refused.items() if self._holds(version, why)}
        self.refused = {} if self.gone else kept
        return _change(self.name, before, self.route, refused, self.refused)

    def _read_policy(self) -> None:
        try:
            self.policy, self.policy_error = read_policy(self._repository.root, self.name), ""
        except PolicyInvalid as exc:
            error = str(exc)
            if error != self.policy_error:
                log.error("the policy of %s stays as it was: %s", self.name, error)
            self.policy_error = error

    def _next_route(self) -> Route | None:
        versions = self._repository.versions(self.name)
        stable = self._stable(versions)
        if stable is None:
            return None
        others = versions if self.policy.versions == "all" else []
        return Route(
            stable,
            self._part(self.policy.canary, stable),
            self._part(self.policy.shadow, stable),
            tuple(model for version in others if (model := self._obtain(version)) is not None),
        )

    def _stable(self, versions: Sequence[int]) -> LiveModel | None:
        wanted = self._first_good(self.policy.wanted(versions))
        if wanted is not None:
            return wanted
        if self.route is not None:
            current = self.route.stable
            return (self._obtain(current.version) if current.version in versions else None) or current
        return self._first_good(substitutes(self.policy, versions))

    def _first_good(self, versions: Sequence[int]) -> LiveModel | None:
        return next((model for version in versions if (model := self._obtain(version)) is not None), None)

    def _part(self, share: Share | None, stable: LiveModel) -> Part | None:
        if share is None or share.version == stable.version:
            return None
        model = self._obtain(share.version)
        return None if model is None else Part(model, share.share)

    def _obtain(self, version: int) -> LiveModel | None:
        """The version, loaded where it is not or its files have changed; None where it is gone or was never good."""
        files = fingerprint.of_folder(self._folder / str(version))
        live, checked = self._live.get(version, (None, None))
        if live is not None and checked == files:
            return live
        refusal = self.refused.get(version)
        if refusal is None or refusal.files != files:
            try:
                self._live[version] = (self._load(self.name, version), files)
            except (BundleRefused, ModelNotFound, VersionNotFound, OSError) as exc:  # the last three: removed or locked
                reason = str(exc)  # a log record that held the error would hold this look, and every model in it
                log.error("refused %s/%d: %s", self.name, version, reason)
                self.refused[version] = Refusal(reason, files)
            else:
                self.refused.pop(version, None)
                return self._live[version][0]
        return None if files == fingerprint.GONE else live

    def _holds(self, version: int, refusal: Refusal) -> bool:
        """A refusal is news until the files change or go; that of a version that the policy names, until it comes."""
        files = fingerprint.of_folder(self._folder / str(version))
        return files == refusal.files and (files != fingerprint.GONE or version in self.policy.named())


def substitutes(policy: ServingPolicy, versions: Sequence[int]) -> list[int]:
    """What may stand in where nothing wanted is good and nothing serves yet: any answer beats none.

    Earlier stable versions come first, then the nearest older ones, then the nearest newer ones.
    """
    pinned = policy.stable if policy.versions != "latest" else 0
    earlier = [version for version in reversed(policy.previous) if version in versions]
    older = [version for version in reversed(versions) if not pinned or version < pinned]
    newer = [version for version in versions if pinned and version > pinned]
    return list(dict.fromkeys((*earlier, *older, *newer)))


def _change(
    name: str,
    before: Route | None,
    after: Route | None,
    refused_before: Mapping[int, Refusal],
    refused: Mapping[int, Refusal],
) -> Change:
    old, new = ([] if route is None else route.models() for route in (before, after))
    return Change(
        name,
        after is not None,
        loaded=tuple(model for model in new if model not in old),
        retired=tuple(model for model in old if model not in new),
        refused={number: found.reason for number, found in refused.items() if refused_before.get(number) is not found},
        cleared=tuple(number for number in refused_before if number not in refused),
    )
