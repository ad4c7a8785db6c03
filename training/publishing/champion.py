"""Which version a new one would replace: the one that serves by the model's policy."""

from pathlib import Path

from bundle.errors import BundleRefused
from bundle.policy import read_policy
from bundle.repository import Bundle, Repository


def find(models: Path, name: str) -> Bundle | None:
    """The version that answers where none is named; None where there is no whole version.

    A damaged one serves nobody, so what the policy wants next comes in, and then any other, newest first. Raises
    `PolicyInvalid`, as guessing which version is in service could replace the wrong one.
    """
    repository = Repository(models)
    versions = repository.versions(name)
    wanted = [version for version in read_policy(models, name).wanted(versions) if version in versions]
    for version in dict.fromkeys((*wanted, *reversed(versions))):
        try:
            return repository.open(name, version)
        except BundleRefused:  # its service refuses it too, and says why
            continue
    return None


def in_words(published: Bundle) -> str:
    """Which version serves now that there is `published`. Raises `PolicyInvalid`."""
    policy = read_policy(published.path.parent.parent, published.name)
    done = f"published as version {published.version}"
    if not policy.loaded:
        return f"{done}; {published.name} is out of service"
    if policy.versions == "latest" or policy.stable in (0, published.version):
        return f"{done}, which serves from now on"
    how = "is pinned" if policy.versions == "pinned" else "is the stable one"
    return f"{done}; version {policy.stable} {how} and goes on serving"
