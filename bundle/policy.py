"""Which versions of a model serve, as its operator wants it: `models/<name>/serving.json` beside the version folders.

Without the file the newest version that passes its checks serves. Changes are made under the publishers' lock and by
one rename, so that a reader sees the policy before or after a change and nothing between.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anther import files, program
from bundle import schema
from bundle.errors import (
    ManifestInvalid,
    ModelNotFound,
    NoEarlierVersion,
    PolicyInvalid,
    PolicyNotWritable,
    VersionNotFound,
)
from bundle.manifest import valid_name
from bundle.repository import OF_THE_PROGRAM, Repository

POLICY = "serving.json"
_SCHEMA_VERSION = 1
_MAX_PREVIOUS = 16
_MAX_BYTES = 2**16  # bytes; the longest policy takes 1 KiB


@dataclass(frozen=True, slots=True)
class Share:
    """A version that gets a share of the requests."""

    version: int  # 1 or more
    share: float  # over 0, at most 1

    def __post_init__(self) -> None:
        if self.version < 1:
            raise ValueError(f"a version of 1 or more, got {self.version}")
        if not 0 < self.share <= 1:
            raise ValueError(f"a share over 0 and at most 1, got {self.share}")


@dataclass(frozen=True, slots=True)
class ServingPolicy:
    """What `serving.json` holds. Transitions return a new policy; they raise `ValueError` on a number out of range."""

    schema_version: int = _SCHEMA_VERSION
    # latest: the newest version that passes its checks; pinned: exactly `stable`; all: every version answers by number.
    versions: Literal["latest", "pinned", "all"] = "latest"
    stable: int = 0  # answers where no version is named; 0: the newest that passes its checks
    canary: Share | None = None  # answers a share of the requests, chosen by the hash of the request's id
    shadow: Share | None = None  # gets copies of a share of the requests; its answers are only measured
    loaded: bool = True  # False: the operator took the model out of service
    previous: tuple[int, ...] = ()  # stable versions before this one, newest last: what `rolled_back` goes back to

    def __post_init__(self) -> None:
        if self.stable < (1 if self.versions == "pinned" else 0):
            least = "1 or more, as versions are pinned" if self.versions == "pinned" else "0 or more"
            raise ValueError(f"a stable version of {least}, got {self.stable}")
        if len(self.previous) > _MAX_PREVIOUS or min(self.previous, default=1) < 1:
            raise ValueError(f"at most {_MAX_PREVIOUS} previous versions of 1 or more, got {list(self.previous)}")

    def pinned_to(self, version: int, current: int) -> "ServingPolicy":
        """Serve exactly `version`, whatever is published. `current` is the version that answers now, 0 where none does.

        A canary or shadow of that version ends; another one goes on.
        """
        return dataclasses.replace(self.promoted(version, current), versions="pinned")

    def promoted(self, version: int, current: int) -> "ServingPolicy":
        """As `pinned_to`, but where every version answers by number they all go on to do so."""
        versions = tuple(filter(None, (*self.previous, current if current != version else 0)))
        return self._with_stable(version, versions[-_MAX_PREVIOUS:])

    def earlier(self, current: int, versions: Sequence[int]) -> list[int]:
        """What may follow `current` in a rollback, best first: stable versions before it, then those of lower number.

        Only members of `versions`.
        """
        served = [version for version in reversed(self.previous) if version in versions and version != current]
        older = sorted((version for version in versions if version < current), reverse=True)
        return list(dict.fromkeys((*served, *older)))

    def rolled_back(self, current: int, versions: Sequence[int]) -> "ServingPolicy":
        """Serve the best of `earlier`. `versions` are those that exist and may serve. Raises `NoEarlierVersion`."""
        candidates = self.earlier(current, versions)
        if not candidates:
            raise NoEarlierVersion(current, versions)
        served = [version for version in self.previous if version in versions and version != current]
        return self._with_stable(candidates[0], tuple(served[:-1]))

    def following_latest(self) -> "ServingPolicy":
        """Serve the newest version that passes its checks, now and after every publication."""
        return dataclasses.replace(self, versions="latest", stable=0)

    def with_canary(self, version: int, share: float) -> "ServingPolicy":
        """Have `version` answer a share of the requests, over 0 and at most 1."""
        return dataclasses.replace(self, canary=Share(version, share))

    def without_canary(self) -> "ServingPolicy":
        return dataclasses.replace(self, canary=None)

    def with_shadow(self, version: int, share: float) -> "ServingPolicy":
        """Have `version` compute copies of a share of the requests, over 0 and at most 1."""
        return dataclasses.replace(self, shadow=Share(version, share))

    def without_shadow(self) -> "ServingPolicy":
        return dataclasses.replace(self, shadow=None)

    def unloaded(self) -> "ServingPolicy":
        """Take the model out of service; the rest of the policy stays for `reloaded`."""
        return dataclasses.replace(self, loaded=False)

    def reloaded(self) -> "ServingPolicy":
        """Bring the model back into service."""
        return dataclasses.replace(self, loaded=True)

    def named(self) -> set[int]:
        """Versions that must exist for this policy to be carried out."""
        shares = {share.version for share in (self.canary, self.shadow) if share is not None}
        return shares | ({self.stable} if self.stable else set())

    def wanted(self, versions: Sequence[int]) -> list[int]:
        """What should answer where no version is named, best first. `versions` are those that exist, ascending.

        With 'latest' a version on trial, as canary or shadow, is not taken for the stable one.
        """
        if self.versions != "latest" and self.stable:
            return [self.stable]
        on_trial = {share.version for share in (self.canary, self.shadow) if share is not None}
        return [version for version in reversed(versions) if version not in on_trial]

    def _with_stable(self, version: int, previous: tuple[int, ...]) -> "ServingPolicy":
        return dataclasses.replace(
            self,
            versions="all" if self.versions == "all" else "pinned",
            stable=version,
            canary=_unless(version, self.canary),
            shadow=_unless(version, self.shadow),
            previous=previous,
        )


def read_policy(root: Path, name: str) -> ServingPolicy:
    """The policy of the model `name` below `root`; the default where it has none.

    Raises `ModelNotFound` for what can be no model's name, and `PolicyInvalid`.
    """
    path = _folder(root, name) / POLICY
    try:
        text = files.read_regular(path, _MAX_BYTES).decode()
    except FileNotFoundError:
        return ServingPolicy()
    except OSError as exc:
        raise PolicyInvalid(path, f"unreadable ({exc.strerror})") from exc
    except ValueError as exc:  # no regular file, too large, or no UTF-8
        raise PolicyInvalid(path, str(exc)) from exc
    return _parsed(text, path)


def edit_policy(root: Path, name: str, change: Callable[[ServingPolicy], ServingPolicy]) -> ServingPolicy:
    """Put a model's policy through `change` and write the result, in turn with other editors and with publishers.

    Raises `ModelNotFound`, `VersionNotFound` where the change names a version that does not exist, `PolicyInvalid`
    where what is there or what `change` returns is no policy, `PolicyNotWritable`, and what `change` raises.
    """
    folder, repository = _folder(root, name), Repository(root)
    if not repository.versions(name):
        raise ModelNotFound(name, repository.models())
    if program.holds_installed_models(root):
        raise PolicyNotWritable(folder / POLICY, OF_THE_PROGRAM, f"copy {root} to ./models, which goes before it")
    try:
        with files.locked_folder(folder):
            before = read_policy(root, name)
            after = change(before)
            _check_versions(name, after.named() - before.named(), repository.versions(name))
            if after != before:
                _write(folder / POLICY, after)
    except OSError as exc:
        raise PolicyNotWritable(folder / POLICY, exc.strerror or str(exc)) from exc
    return after


def _folder(root: Path, name: str) -> Path:
    """No name leads out of the repository."""
    if not valid_name(name):
        raise ModelNotFound(name, Repository(root).models())
    return root / name


def _parsed(text: str, path: Path) -> ServingPolicy:
    try:
        record = schema.parse(text)
        version = record.get("schema_version") if isinstance(record, dict) else _SCHEMA_VERSION
        if version != _SCHEMA_VERSION:  # a newer one may look in any way
            raise ManifestInvalid("schema_version", version, f"{_SCHEMA_VERSION}, the one that this Anther reads")
        return schema.read(ServingPolicy, record)
    except ManifestInvalid as exc:
        field, value, expected = exc.facts["field"], exc.facts["value"], exc.facts["expected"]
        subject = "it" if field == schema.WHOLE else f"field '{field}'"
        raise PolicyInvalid(path, f"{subject} is {value}; expected {expected}") from exc


def _check_versions(name: str, named: set[int], existing: list[int]) -> None:
    """Only newly named versions are checked: a version deleted meanwhile must not block every other change."""
    for version in sorted(named - set(existing)):
        raise VersionNotFound(name, version, existing)


def _write(path: Path, policy: ServingPolicy) -> None:
    text = json.dumps(dataclasses.asdict(policy), indent=2) + "\n"
    _parsed(text, path)  # what is written can be read
    files.sweep(path.parent, path.name)
    files.replace(path, text.encode())


def _unless(version: int, share: Share | None) -> Share | None:
    return None if share is not None and share.version == version else share
