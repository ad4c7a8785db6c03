"""The settings: one frozen object, with the ports and limits that the documentation names."""

import dataclasses
from pathlib import Path

import pytest

from anther.program import EMBEDDED_MODELS
from bundle.preprocessing import DEFAULT_LIMITS
from service import config
from service.config import Settings


def test_defaults_are_those_of_the_documentation() -> None:
    settings = Settings()
    assert (settings.device, settings.host) == ("auto", "127.0.0.1")
    assert (settings.grpc_port, settings.ops_port) == (8001, 8002)


def test_without_a_folder_models_the_embedded_model_serves(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings().models == EMBEDDED_MODELS
    assert (Settings().models / "flowers").is_dir()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_whatever_is_called_models_here_goes_before_it(tmp_path: Path, monkeypatch, make) -> None:
    """An empty folder, a file or a broken link is a mistake of the user's, who is told so."""
    monkeypatch.chdir(tmp_path)
    make(Path("models"))
    assert Settings().models == Path("models")


def test_a_distribution_without_a_model_asks_for_the_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "EMBEDDED_MODELS", tmp_path / "none")
    assert Settings().models == Path("models")


def test_default_limits_are_those_of_training() -> None:
    settings = Settings()
    assert settings.max_image_bytes == DEFAULT_LIMITS.max_bytes
    assert settings.max_image_pixels == DEFAULT_LIMITS.max_pixels


def test_a_default_queue_has_room_for_the_largest_picture() -> None:
    assert Settings().queue_bytes > Settings().max_image_bytes


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().lanes = 3  # type: ignore[misc]
