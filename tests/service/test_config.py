"""The settings: one frozen object, with the ports and limits that the documentation names."""

import dataclasses
from pathlib import Path

import pytest

from bundle.preprocessing import DEFAULT_LIMITS
from service.config import Settings


def test_defaults_are_those_of_the_documentation() -> None:
    settings = Settings()
    assert (settings.models, settings.device, settings.host) == (Path("models"), "auto", "127.0.0.1")
    assert (settings.grpc_port, settings.ops_port) == (8001, 8002)


def test_default_limits_are_those_of_training() -> None:
    settings = Settings()
    assert settings.max_image_bytes == DEFAULT_LIMITS.max_bytes
    assert settings.max_image_pixels == DEFAULT_LIMITS.max_pixels


def test_a_default_queue_has_room_for_the_largest_picture() -> None:
    assert Settings().queue_bytes > Settings().max_image_bytes


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().lanes = 3  # type: ignore[misc]
