"""The engine for a CPU gives each row the answer that it would have alone."""

import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import BundleCorrupt
from bundle.repository import Bundle, Repository
from service.engines.engine import OnnxEngine, open_on_cpu
from service.engines.runtime import CPU

CROP = 32


@pytest.fixture(scope="module")
def bundle(models: Path) -> Bundle:
    return Repository(models).open("flowers")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> OnnxEngine:
    return open_on_cpu(bundle)


def pictures(count: int, seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (count, CROP, CROP, 3), np.uint8)


def test_it_runs_on_the_cpu_one_row_after_the_other(engine: OnnxEngine) -> None:
    assert (engine.provider, engine.batch_sizes) == (CPU, (1,))


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_a_row_of_a_batch_equals_the_same_picture_alone(engine: OnnxEngine, counts: list[int], seed: int) -> None:
    parts = [pictures(count, seed) for count in counts]
    together = engine.run(parts)
    rows = np.concatenate(parts)
    assert together.probabilities.shape == together.logits.shape == (len(rows), 3)
    assert together.probabilities.dtype == together.logits.dtype == np.float32
    for index in range(len(rows)):
        alone = engine.run((rows[index : index + 1],))
        np.testing.assert_allclose(together.logits[index], alone.logits[0], atol=1e-5)
        np.testing.assert_allclose(together.probabilities[index], alone.probabilities[0], atol=1e-6)


def test_evidence_is_given_only_where_it_is_asked_for(engine: OnnxEngine) -> None:
    """Its mean over the map is the logit without the class's bias."""
    pixels = pictures(4)
    assert engine.run((pixels,)).evidence is None
    outputs = engine.run((pixels,), evidence=True)
    assert outputs.evidence is not None
    assert outputs.evidence.shape == (4, 3, 4, 4)
    biases = outputs.logits - outputs.evidence.mean((2, 3))
    np.testing.assert_allclose(biases, biases[:1].repeat(4, axis=0), atol=1e-5)


def test_a_closed_engine_gives_its_session_back(bundle: Bundle) -> None:
    engine = open_on_cpu(bundle)
    session = weakref.ref(engine._session)
    engine.close()
    assert session() is None


def test_an_engine_that_nobody_holds_gives_its_session_back(bundle: Bundle) -> None:
    engine = open_on_cpu(bundle)
    session = weakref.ref(engine._session)
    del engine
    assert session() is None


def test_a_model_that_changed_on_the_disk_is_not_opened(tmp_path: Path, publish_bundle) -> None:
    publish_bundle(tmp_path)
    bundle = Repository(tmp_path).open("flowers")
    (bundle.path / "model.onnx").write_bytes(b"something else")
    with pytest.raises(BundleCorrupt):
        open_on_cpu(bundle)
