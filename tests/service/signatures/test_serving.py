"""A server that requires signatures loads nothing else, whichever way a version comes into service."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.policy import ServingPolicy, edit_policy
from bundle.repository import Repository, signature_of
from service.app import App
from service.assembly import opener
from service.config import Settings
from service.errors import NoModelReady, TrustUnusable
from service.versions.registry import Registry
from tests.service.signatures.signer import Signer

PATIENCE_S = 60


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def settings(tmp_path: Path, signer: Signer, publish_bundle) -> Settings:
    """flowers 1 is signed, flowers 2 is not."""
    models, key = tmp_path / "models", tmp_path / "key.pub"
    publish_bundle(models, seed=1)
    publish_bundle(models, seed=2)
    key.write_bytes(signer.public_pem())
    signer.sign(Repository(models).open("flowers", 1))
    ports = {"grpc_port": 0, "ops_port": 0}
    return Settings(models=models, require_signature=str(key), watch_s=0.02, lanes=1, grace_s=PATIENCE_S, **ports)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(Repository(settings.models), opener(settings, "cpu"))


def test_a_watching_server_takes_a_version_when_it_is_signed(settings, signer, run, eventually) -> None:
    """Until then the last good one serves, and the page and the metrics say why."""
    app = App(settings)
    run(app.start())
    try:
        assert app.serving() == "flowers/1 on CPUExecutionProvider"
        assert "2.sig is missing" in _ready(app)["refused"]["flowers/2"]
        assert _refused(app, "SIGNATURE_MISSING") == 1
        signer.sign(Repository(settings.models).open("flowers", 2))
        eventually(lambda: app.serving() == "flowers/2 on CPUExecutionProvider")
        eventually(lambda: _ready(app)["refused"] == {})
        assert _refused(app, "SIGNATURE_MISSING") is None
        signature_of(settings.models / "flowers" / "2").write_text("{}")
        eventually(lambda: _refused(app, "SIGNATURE_INVALID") == 1)
        assert app.serving() == "flowers/2 on CPUExecutionProvider"  # it was signed when it was loaded
    finally:
        run(app.stop())


@pytest.mark.parametrize(
    "change",
    [
        lambda policy: policy.with_canary(2, 0.5),
        lambda policy: policy.with_shadow(2, 0.5),
        lambda policy: policy.pinned_to(2, 1),
    ],
    ids=["canary", "shadow", "pinned"],
)
def test_no_policy_brings_an_unsigned_version_into_service(
    registry, settings, change: Callable[[ServingPolicy], ServingPolicy]
) -> None:
    edit_policy(settings.models, "flowers", change)
    registry.load_all()
    route = registry.routes()["flowers"]
    assert (route.stable.version, route.canary, route.shadow) == (1, None, None)
    assert "signed" in registry.refused["flowers/2"]
    registry.close()


def test_without_a_signed_version_the_server_does_not_start(registry, settings) -> None:
    signature_of(settings.models / "flowers" / "1").unlink()
    with pytest.raises(NoModelReady, match=r"1\.sig is missing") as raised:
        registry.load_all()
    assert "train one" not in str(raised.value)


def test_without_a_key_the_server_does_not_start(settings, tmp_path) -> None:
    with pytest.raises(TrustUnusable, match="No such file"):
        App(Settings(models=settings.models, require_signature=str(tmp_path / "absent.pub")))


def _ready(app: App) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{app._ops.port}/readyz", timeout=PATIENCE_S) as answer:
        return json.load(answer)


def _refused(app: App, reason: str) -> float | None:
    labels = {"model": "flowers", "version": "2", "reason": reason}
    return app._metrics.registry.get_sample_value("anther_model_refused", labels)
