"""Clients' commands to load and unload a model. They edit its policy, so that a restart keeps their effect."""

import asyncio
from collections.abc import Callable

from bundle.errors import BundleRefused, ModelNotFound
from bundle.policy import ServingPolicy, edit_policy
from service.versions.registry import Registry
from service.versions.watcher import Watcher

Transition = Callable[[ServingPolicy], ServingPolicy]


def no_others() -> None:
    """For a single server: there is no other process to tell."""


class PolicyControl:
    """Each call returns when the registry follows the edited policy.

    `on_edit` is called on the event loop as soon as the policy is on the disk; it tells other processes to follow too.
    """

    def __init__(self, registry: Registry, watcher: Watcher, on_edit: Callable[[], None] = no_others) -> None:
        self._registry = registry
        self._watcher = watcher
        self._on_edit = on_edit
        self._following: set[asyncio.Task[None]] = set()  # the loop itself would not keep them

    async def load(self, name: str) -> None:
        """Bring the model into service, and rescan its folder, refused versions included.

        Raises `ModelNotFound`, `PolicyInvalid`, `PolicyNotWritable`, and `BundleRefused` where none of its versions may
        serve.
        """
        await self._follow(name, ServingPolicy.reloaded)
        if name not in self._registry.routes():
            raise self._why_not(name)

    async def unload(self, name: str) -> None:
        """Take the model out of service until it is loaded again. Raises as `load` does, save `BundleRefused`."""
        await self._follow(name, ServingPolicy.unloaded)

    async def _follow(self, name: str, change: Transition) -> None:
        """Finish even when the caller leaves: the registry must follow the policy that is on the disk."""
        following = asyncio.create_task(self._edit_and_follow(name, change))
        self._following.add(following)
        following.add_done_callback(self._following.discard)
        await asyncio.shield(following)

    async def _edit_and_follow(self, name: str, change: Transition) -> None:
        await asyncio.to_thread(edit_policy, self._registry.repository.root, name, change)
        self._on_edit()
        await asyncio.wrap_future(self._watcher.reconcile())

    def _why_not(self, name: str) -> Exception:
        prefix = f"{name}/"
        reasons = [f"{which}: {why}" for which, why in self._registry.refused.items() if which.startswith(prefix)]
        if not reasons:  # deleted meanwhile
            return ModelNotFound(name, sorted(self._registry.routes()))
        return BundleRefused(f"no version of '{name}' can serve ({'; '.join(reasons)})")
