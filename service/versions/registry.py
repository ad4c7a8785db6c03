"""The models in service: who answers a request, at every moment, and how one set of versions takes another's place.

A lookup reads one immutable route; a switch replaces it in one step. Requests in flight hold the version that they
began with, so they finish on it.
"""

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bundle.errors import ModelNotFound
from bundle.repository import Repository
from service.engines.engine import Engine, OpenEngine
from service.errors import InvalidArgument, NoModelReady
from service.versions import loader
from service.versions.loader import LiveModel
from service.versions.reconcile import Change, Reconciler
from service.versions.routes import Route

__all__ = ["Change", "LiveModel", "OpenEngine", "Registry"]

log = logging.getLogger(__name__)


def _drop(engine: Engine) -> None:
    """Nothing to do: with its last reference an engine is freed."""


def _go_on() -> None:
    """At the start nobody else wants the processor."""


@dataclass
class Registry:
    """Finds the live model for a request. `default` answers requests that name no model.

    Lookups may come from any thread. `on_change` is called after each switch, by the thread that made it.
    """

    repository: Repository
    open_engine: OpenEngine
    default: str = ""
    on_change: list[Callable[[Change], None]] = field(default_factory=list)
    pause: Callable[[], None] = _go_on  # is called between the steps of loading a version
    dispose: Callable[[Engine], None] = _drop  # gets the engine of a retired version that nobody works with any more
    refused: dict[str, str] = field(default_factory=dict)  # 'name/version' → why it does not serve; 0: its folder
    policy_errors: dict[str, str] = field(default_factory=dict)  # name → why its policy could not be read
    _routes: dict[str, Route] = field(default_factory=dict)  # replaced, never changed
    _reconcilers: dict[str, Reconciler] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def load_all(self) -> None:
        """Bring every model into service as its policy says. Raises `NoModelReady` where none is, though one should.

        Also `ModelNotFound` for an unknown default.
        """
        self.refresh()
        unloaded = [name for name, reconciler in self._reconcilers.items() if not reconciler.policy.loaded]
        if not self._routes and not unloaded:
            raise self._nothing_ready()
        if self.default and self.default not in (*self._routes, *unloaded):
            raise ModelNotFound(self.default, list(self._routes))

    def refresh(self, again: bool = False) -> bool:
        """Look at every model's folder, load what is missing, switch, retire the rest; one caller at a time.

        `again` tries refused versions once more although their files have not changed. Returns whether another look is
        due although no file changes: anything is other than before, or the system failed and may do so no more. Raises
        what is no fault of a bundle, such as an unreadable folder of models; what serves then goes on to serve.
        """
        with self._turn:
            if self._reconcilers:
                self.repository.root.stat()  # a share that is not mounted must not take every model away
            names = sorted({*self.repository.models(), *self.repository.unreadable(), *self._reconcilers})
            due = [name for name in names if self._look(name, again)]
            return bool(due)

    def live(self) -> list[LiveModel]:
        """Every version that answers requests, by name and number: stable, canary, and those asked for by number."""
        routes = self._routes
        return [model for name in sorted(routes) for model in routes[name].answering.values()]

    def routes(self) -> dict[str, Route]:
        """By name: who is stable, canary and shadow at this moment."""
        return dict(sorted(self._routes.items()))

    def route(self, name: str) -> Route | None:
        """'' is the default or the only one."""
        routes = self._routes
        if not name and not self.default and len(routes) == 1:
            return next(iter(routes.values()))
        return routes.get(name or self.default)

    def find(self, name: str = "", version: int = 0, label: str = "", request_id: str = "") -> LiveModel:
        """The version that answers a request; see `Route.choose`. '' is the default model or the only one.

        Raises `ModelNotFound`, `VersionNotFound`, `CanaryNotFound`, `NoModelReady` or `InvalidArgument`.
        """
        route = self.route(name)
        if route is None:
            raise self._not_found(name or self.default)
        return route.choose(version, label, request_id)

    def named(self, name: str) -> LiveModel | None:
        """The stable version of what a request means by `name`; None where there is no such model."""
        route = self.route(name)
        return None if route is None else route.stable

    def close(self) -> None:
        for route in self._routes.values():
            for model in route.models():
                model.engine.close()

    def _look(self, name: str, again: bool) -> bool:
        reconciler = self._reconcilers.get(name)
        if reconciler is None:
            load = partial(loader.load, self.repository, self.open_engine, pause=self._pause)
            reconciler = self._reconcilers[name] = Reconciler(name, self.repository, load)
        asked = (reconciler.policy, reconciler.policy_error)
        change = reconciler.look(again)
        self._switch(name, reconciler.route)
        if reconciler.route is None and reconciler.gone:
            del self._reconcilers[name]
        self._note_refusals()
        for model in change.retired:
            log.info("%s/%d serves no more; requests in flight finish on it", model.name, model.version)
            weakref.finalize(model, self.dispose, model.engine).atexit = False
        for tell in self.on_change:
            tell(change)
        return change.happened or reconciler.unsettled or asked != (reconciler.policy, reconciler.policy_error)

    def _pause(self) -> None:
        self.pause()

    def _switch(self, name: str, route: Route | None) -> None:
        before = self._routes.get(name)
        if route == before:
            return
        others = {other: found for other, found in self._routes.items() if other != name}
        self._routes = others if route is None else {**others, name: route}
        log.info("serving %s: %s", name, "nothing" if route is None else route)

    def _note_refusals(self) -> None:
        reconcilers = dict(sorted(self._reconcilers.items()))
        self.refused = {
            f"{name}/{version}": refusal.reason
            for name, reconciler in reconcilers.items()
            for version, refusal in sorted(reconciler.refused.items(), reverse=True)
        }
        self.policy_errors = {
            name: reconciler.policy_error for name, reconciler in reconcilers.items() if reconciler.policy_error
        }

    def _not_found(self, name: str) -> Exception:
        serving = sorted(self._routes)
        if not serving:
            return self._nothing_ready()
        if name:
            return ModelNotFound(name, serving)
        return InvalidArgument("model", "", f"one of {', '.join(serving)}: several models serve")

    def _nothing_ready(self) -> NoModelReady:
        reasons = "; ".join(f"{which}: {why}" for which, why in self.refused.items()) or "there is none"
        return NoModelReady(self.repository.root, reasons)
