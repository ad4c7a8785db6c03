"""Brings one model from what serves to what its folder and its policy ask for.

Missing versions are loaded while the old ones serve. A version that fails is refused with its reason, and the last
good version stays.
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
"""The kind of a refusal whose cause is the system, not the version."""

FOLDER = 0
"""The number under which a model's folder is refused when it cannot be listed."""

_SEEN_IN_THE_FILES = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version does not serve, and the state of its files at that time.

    `may_pass` where the system failed, so that the same files may be accepted later.
    """

    reason: str  # a sentence
    kind: str  # a word, such as GOLDEN_MISMATCH, of which there are few
    files: Fingerprint
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The result of one rescan of a model's folder."""

    name: str
    serves: bool
    loaded: tuple[LiveModel, ...]  # newly in service
    retired: tuple[LiveModel, ...]  # out of service: requests in flight finish on them, new ones go elsewhere
    refused: Mapping[int, Refusal]  # newly refused
    cleared: tuple[int, ...]  # refused earlier, good or gone now

    @property
    def happened(self) -> bool:
        return bool(self.loaded or self.retired or self.refused or self.cleared)


class Reconciler:
    """Keeps one model in service."""

    def __init__(self, name: str, repository: Repository) -> None:
        self.name = name
        self.route: Route | None = None
        self.policy = ServingPolicy()  # the last that could be read
        self.policy_error = ""  # why a newer one could not
        self.refused: dict[int, Refusal] = {}
        self.gone = False  # whether the folder was missing at the last rescan
        self._policy_may_pass = False  # whether the system caused `policy_error`
        self._logged: dict[int, Refusal] = {}  # refusals that need not be logged again
        self._folder = repository.root / name
        self._repository = repository
        self._live: dict[int, tuple[LiveModel, Fingerprint]] = {}

    @property
    def unsettled(self) -> bool:
        """Whether the next rescan may judge the same files differently."""
        return self._policy_may_pass or any(refusal.may_pass for refusal in self.refused.values())

    def rescan(self, load: Load, again: bool = False) -> Change:
        """Read the folder and its policy, load what is missing, and set `route` to what they ask for.

        `again` tries refused versions once more although their files have not changed. Raises what is no fault of a
        bundle, such as a missing device; `route` is then as before.
        """
        before, refused = self.route, self.refused
        self._logged = {} if again else refused
        self._read_policy()
        try:
            versions = self._repository.versions(self.name)
            self.gone = not self._folder.is_dir()
        except (BundleRefused, OSError) as exc:  # what serves goes on
            self.refused = dict(refused)
            self._refuse(FOLDER, exc, fingerprint.GONE)
        else:
            self._follow(versions, load)
        return _change(self.name, before, self.route, refused, self.refused)

    def _follow(self, versions: Sequence[int], load: Load) -> None:
        self.refused = {version: why for version, why in self._logged.items() if not why.may_pass}
        self.route = None if self.gone or not self.policy.loaded else self._next_route(versions, load)
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

    def _next_route(self, versions: Sequence[int], load: Load) -> Route | None:
        stable = self._stable(versions, load)
        if stable is None:
            return None
        others = versions if self.policy.versions == "all" else []
        return Route(
            stable,
            self._part(self.policy.canary, stable, load),
            self._part(self.policy.shadow, stable, load),
            tuple(model for version in others if (model := self._obtain(version, load)) is not None),
        )

    def _stable(self, versions: Sequence[int], load: Load) -> LiveModel | None:
        wanted = self._first_good(self.policy.wanted(versions), load)
        if wanted is not None:
            return wanted
        if self.route is not None:
            current = self.route.stable
            return (self._obtain(current.version, load) if current.version in versions else None) or current
        return self._first_good(substitutes(self.policy, versions), load)

    def _first_good(self, versions: Sequence[int], load: Load) -> LiveModel | None:
        return next((model for version in versions if (model := self._obtain(version, load)) is not None), None)

    def _part(self, share: Share | None, stable: LiveModel, load: Load) -> Part | None:
        if share is None or share.version == stable.version:
            return None
        model = self._obtain(share.version, load)
        return None if model is None else Part(model, share.share)

    def _obtain(self, version: int, load: Load) -> LiveModel | None:
        """The version; it is loaded first where it is new or its files have changed. None where it cannot serve."""
        files = fingerprint.of_version(self._folder / str(version))
        live, checked = self._live.get(version, (None, None))
        if live is not None and checked == files:
            return live
        refusal = self.refused.get(version)
        if refusal is None or refusal.files != files:
            try:
                self._live[version] = (load(self.name, version), files)
            except (BundleRefused, ModelNotFound, VersionNotFound, OSError) as exc:  # the last three: removed or locked
                self._refuse(version, exc, files)
            else:
                self.refused.pop(version, None)
                return self._live[version][0]
        return None if files == fingerprint.GONE else live

    def _refuse(self, version: int, error: Exception, files: Fingerprint) -> None:
        """Note the refusal, and log it once, however often the same one is found."""
        reason = str(error)  # a log record with the error itself would keep this frame, and every model in it, alive
        kind = reason_of(type(error)) if isinstance(error, AntherError) else UNREADABLE
        refusal, logged = Refusal(reason, kind, files, _may_pass(error)), self._logged.get(version)
        if refusal == logged:
            refusal = logged
        else:
            log.error("refused %s: %s", f"{self.name}/{version}" if version != FOLDER else self.name, reason)
        self.refused[version] = refusal

    def _holds(self, version: int, refusal: Refusal) -> bool:
        """Whether a refusal still stands: its files are as they were, or the policy names a version that is missing."""
        files = fingerprint.of_version(self._folder / str(version))
        return files == refusal.files and (files != fingerprint.GONE or version in self.policy.named())


def _may_pass(error: Exception) -> bool:
    """Whether the system failed, not the version: no file descriptor was left, the disk failed, access was denied."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno not in _SEEN_IN_THE_FILES


def substitutes(policy: ServingPolicy, versions: Sequence[int]) -> list[int]:
    """The versions to try, best first, where no wanted one is good and none serves yet.

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
