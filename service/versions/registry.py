"""The models in service: which version answers a request, and how one set of versions replaces another.

A lookup reads one immutable route; a switch replaces it in one step. Requests in flight keep a reference to the version
that they began with, so they finish on it.
"""

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial

from anther.errors import reason_of
from bundle.errors import ModelNotFound, SignatureInvalid, SignatureMismatch, SignatureMissing
from bundle.repository import Repository
from service.config import hidden_models
from service.engines.engine import Engine, OpenEngine
from service.errors import InvalidArgument, NoModelReady
from service.versions import loader
from service.versions.loader import LiveModel
from service.versions.reconcile import Change, Load, Reconciler
from service.versions.routes import Route

log = logging.getLogger(__name__)

_OF_SIGNATURES = {reason_of(kind) for kind in (SignatureMissing, SignatureInvalid, SignatureMismatch)}
_NAME_ONE = (
    "name one in the request (`model=` of the client, --model of `anther classify`), or start the server with "
    "--default-model"
)


def _drop(engine: Engine) -> None:
    """Nothing to do: an engine is freed with its last reference."""


def _ignore(change: Change) -> None:
    """For a registry without a listener."""


def _go_on() -> None:
    """At the start no request waits for the processor."""


class Registry:
    """Finds the live model for a request. `default` answers requests that name no model.

    Lookups may come from any thread. `on_change` is called after each rescan of a model's folder, by the thread that
    made it. `dispose` gets the engine of a retired version once no request uses it any more.
    """

    def __init__(
        self,
        repository: Repository,
        open_engine: OpenEngine,
        default: str = "",
        on_change: Callable[[Change], None] = _ignore,
        dispose: Callable[[Engine], None] = _drop,
    ) -> None:
        self.repository = repository
        self.default = default
        self.refused: dict[str, str] = {}  # 'name/version' → why it does not serve; version 0 is the folder itself
        self.policy_errors: dict[str, str] = {}  # name → why its policy could not be read
        self._open_engine = open_engine
        self._on_change = on_change
        self._dispose = dispose
        self._unsigned = False  # whether one is refused for its signature
        self._routes: dict[str, Route] = {}  # replaced, never changed
        self._reconcilers: dict[str, Reconciler] = {}
        self._turn = threading.Lock()

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

    def refresh(self, again: bool = False, pause: Callable[[], None] = _go_on) -> bool:
        """Rescan every model's folder, load what is missing, switch, retire the rest; one caller at a time.

        `again` tries refused versions once more although their files have not changed. `pause` is called between the
        steps of loading a version. Returns whether another rescan is due although no file changes: something changed,
        or the system failed and may recover. Raises what is no fault of a bundle, such as an unreadable folder of
        models; what serves then goes on to serve.
        """
        with self._turn:
            if self._reconcilers:
                self.repository.root.stat()  # a share that is not mounted must not take every model away
            names = sorted({*self.repository.models(), *self.repository.unreadable(), *self._reconcilers})
            load = partial(loader.load, self.repository, self._open_engine, pause=pause)
            due = [name for name in names if self._rescan(name, load, again)]
            return bool(due)

    def live(self) -> list[LiveModel]:
        """Every version that answers requests, by name and number: stable, canary, and those asked for by number."""
        routes = self._routes
        return [model for name in sorted(routes) for model in routes[name].answering.values()]

    def routes(self) -> dict[str, Route]:
        """Name → the route of this moment: stable, canary and shadow."""
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

    def _rescan(self, name: str, load: Load, again: bool) -> bool:
        reconciler = self._reconcilers.get(name)
        if reconciler is None:
            reconciler = self._reconcilers[name] = Reconciler(name, self.repository)
        asked = (reconciler.policy, reconciler.policy_error)
        change = reconciler.rescan(load, again)
        self._switch(name, reconciler.route)
        if reconciler.route is None and reconciler.gone:
            del self._reconcilers[name]
        self._note_refusals()
        for model in change.retired:
            log.info("%s/%d serves no more; requests in flight finish on it", model.name, model.version)
            weakref.finalize(model, self._dispose, model.engine).atexit = False
        self._on_change(change)
        return change.happened or reconciler.unsettled or asked != (reconciler.policy, reconciler.policy_error)

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
        kinds = {refusal.kind for reconciler in reconcilers.values() for refusal in reconciler.refused.values()}
        self._unsigned = not kinds.isdisjoint(_OF_SIGNATURES)
        self.policy_errors = {
            name: reconciler.policy_error for name, reconciler in reconcilers.items() if reconciler.policy_error
        }

    def _not_found(self, name: str) -> Exception:
        serving = sorted(self._routes)
        if not serving:
            return self._nothing_ready()
        if name:
            return ModelNotFound(name, serving)
        return InvalidArgument("model", "", f"one of {', '.join(serving)}: several models serve; {_NAME_ONE}")

    def _nothing_ready(self) -> NoModelReady:
        reasons = "; ".join(f"{which}: {why}" for which, why in self.refused.items()) or "there is none"
        root = self.repository.root
        return NoModelReady(root, reasons, hidden_models(root), unsigned=self._unsigned)
