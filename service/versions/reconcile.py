"""From what serves to what the folder and its policy ask for, one model at a time.

Whatever is missing is loaded while the old versions serve; whatever fails is noted, and the last good version stays.
"""

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from anther.errors import AntherError, reason_of
from bundle.errors import BundleRefused, ModelNotFound, PolicyInvalid, VersionNotFound
from bundle.policy import ServingPolicy, Share, read_policy
from bundle.repository import Repository
from service.versions import fingerprint
from service.versions.fingerprint import Fingerprint
from service.versions.loader import LiveModel
from service.versions.routes import Part, Route

log = logging.getLogger(__name__)

Load = Callable[[str, int], LiveModel]

UNREADABLE = "UNREADABLE"
"""The kind of a refusal by the system."""

FOLDER = 0
"""Stands among the refused versions for a model's folder that cannot be listed."""

_SEEN_IN_THE_FILES = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version does not serve, the files that it was found in, and whether these may be good all the same."""

    reason: str  # a sentence
    kind: str  # a word, such as GOLDEN_MISMATCH, of which there are few
    files: Fingerprint
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What one look at a model's folder led to."""

    name: str
    serves: bool
    loaded: tuple[LiveModel, ...]  # came into service
    retired: tuple[LiveModel, ...]  # get no new requests; those in flight finish on them
    refused: Mapping[int, Refusal]  # failed their checks this time
    cleared: tuple[int, ...]  # were refused earlier, and are good or gone now

    @property
    def happened(self) -> bool:
        return bool(self.loaded or self.retired or self.refused or self.cleared)


class Reconciler:
    """Keeps one model in service."""

    def __init__(self, name: str, repository: Repository, load: Load) -> None:
        self.name = name
        self.route: Route | None = None
        self.policy = ServingPolicy()  # the last that could be read
        self.policy_error = ""  # why a newer one could not
        self.refused: dict[int, Refusal] = {}
        self.gone = False  # the folder, when it was last looked at
        self._policy_may_pass = False  # what stands in `policy_error`
        self._told: dict[int, Refusal] = {}  # what is no news
        self._folder = repository.root / name
        self._repository = repository
        self._load = load
        self._live: dict[int, tuple[LiveModel, Fingerprint]] = {}

    @property
    def unsettled(self) -> bool:
        """Whether the next look may find other answers in the same files."""
        return self._policy_may_pass or any(refusal.may_pass for refusal in self.refused.values())

    def look(self, again: bool = False) -> Change:
        """Bring `route` to what the folder asks for. `again` tries refused versions once more, changed or not.

        Raises what is no fault of a bundle, such as a missing device; `route` is then as before.
        """
        before, refused = self.route, self.refused
        self._told = {} if again else refused
        self._read_policy()
        try:
            versions = self._repository.versions(self.name)
            self.gone = not self._folder.is_dir()
        except (BundleRefused, OSError) as exc:  # what serves goes on
            self.refused = dict(refused)
            self._refuse(FOLDER, exc, fingerprint.GONE)
        else:
            self._follow(versions)
        return _change(self.name, before, self.route, refused, self.refused)

    def _follow(self, versions: Sequence[int]) -> None:
        self.refused = {version: why for version, why in self._told.items() if not why.may_pass}
        self.route = None if self.gone or not self.policy.loaded else self._next_route(versions)
        models = [] if self.route is None else self.route.models()
        self._live = {model.version: self._live[model.version] for model in models}
        kept = {version: why for version, why in self.refused.items() if self._holds(version, why)}
        self.refused = {} if self.gone else kept

    def _read_policy(self) -> None:
        try:
            self.policy, self.policy_error = read_policy(self._repository.root, self.name), ""
            self._policy_may_pass = False
        except PolicyInvalid as exc:
            error, self._policy_may_pass = str(exc), _may_pass(exc)
            if error != self.policy_error:
                log.error("the policy of %s stays as it was: %s", self.name, error)
            self.policy_error = error

    def _next_route(self, versions: Sequence[int]) -> Route | None:
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
                self._refuse(version, exc, files)
            else:
                self.refused.pop(version, None)
                return self._live[version][0]
        return None if files == fingerprint.GONE else live

    def _refuse(self, version: int, error: Exception, files: Fingerprint) -> None:
        """Told once, however often the same is found."""
        reason = str(error)  # a log record that held the error would hold this look, and every model in it
        kind = reason_of(type(error)) if isinstance(error, AntherError) else UNREADABLE
        refusal, told = Refusal(reason, kind, files, _may_pass(error)), self._told.get(version)
        if refusal == told:
            refusal = told
        else:
            log.error("refused %s: %s", f"{self.name}/{version}" if version != FOLDER else self.name, reason)
        self.refused[version] = refusal

    def _holds(self, version: int, refusal: Refusal) -> bool:
        """A refusal is news until the files change or go; that of a version that the policy names, until it comes."""
        files = fingerprint.of_folder(self._folder / str(version))
        return files == refusal.files and (files != fingerprint.GONE or version in self.policy.named())


def _may_pass(error: Exception) -> bool:
    """Whether the system failed, not the version: no descriptor was left, a disk did not answer, access was denied."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno not in _SEEN_IN_THE_FILES


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
        refused={number: found for number, found in refused.items() if refused_before.get(number) is not found},
        cleared=tuple(number for number in refused_before if number not in refused),
    )
