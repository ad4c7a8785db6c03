"""A version becomes live when it proves itself one by one and at every batch size; `test_registry` breaks bundles."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anther.errors import AntherError
from bundle.errors import BundleRefused, GoldenMismatch
from bundle.repository import Bundle, Repository
from service.engines.engine import Outputs, open_on_cpu
from service.versions import loader

Spoil = Callable[[Outputs], Outputs]


class BatchEngine:
    """The real engine as a device with several batch sizes; `spoil` changes what batches of `size` give."""

    batch_sizes = (1, 4, 32)

    def __init__(self, bundle: Bundle, size: int = 0, spoil: Spoil = lambda outputs: outputs) -> None:
        self._inner = open_on_cpu(bundle)
        self.provider, self.precision = self._inner.provider, self._inner.precision
        self.rows: list[int] = []
        self.closed = False
        self._size, self._spoil = size, spoil

    def run(self, parts: Any, evidence: bool = False) -> Outputs:
        rows = sum(len(part) for part in parts)
        assert rows in self.batch_sizes
        self.rows.append(rows)
        outputs = self._inner.run(parts, evidence)
        return self._spoil(outputs) if rows == self._size else outputs

    def close(self) -> None:
        self.closed = True


def last_row(change: float) -> Spoil:
    """Logits of the last row off by `change`, and its probabilities with them."""

    def spoil(outputs: Outputs) -> Outputs:
        logits = outputs.logits.copy()
        logits[-1] += np.float32(change)  # the same for all classes, so the probabilities stay right
        return outputs._replace(logits=logits)

    return spoil


@pytest.fixture
def load(models: Path):
    """`load(size, spoil)` loads the model with such an engine, and gives the engine as well, or what was raised."""

    def loaded(size: int = 0, spoil: Spoil = lambda outputs: outputs, root: Path = models):
        engines: list[BatchEngine] = []

        def open_engine(bundle: Bundle) -> BatchEngine:
            engines.append(BatchEngine(bundle, size, spoil))
            return engines[-1]

        try:
            return loader.load(Repository(root), open_engine, "flowers", 1), engines[0]
        except AntherError as refusal:
            return refusal, engines[0]

    return loaded


def test_every_batch_size_is_run_before_the_model_is_live(load) -> None:
    model, engine = load()
    assert set(engine.rows) == {1, 4, 32}
    assert engine.rows.count(1) > 10, "the golden pictures, one by one"
    assert not engine.closed
    assert (model.name, model.version, model.labels) == ("flowers", 1, ("flowers", "1"))
    assert model.load_s > 0


@pytest.mark.parametrize("size", [4, 32])
def test_a_row_that_is_off_in_a_batch_alone_refuses_the_version(load, size: int) -> None:
    refusal, engine = load(size, last_row(0.01))
    assert isinstance(refusal, GoldenMismatch)
    assert f"has, in a batch of {size}, a logit off by 1.00e-02; expected at most 1.00e-04" in str(refusal)
    assert engine.closed


def test_the_picture_of_the_row_that_is_off_is_named(load, models: Path) -> None:
    refusal, _ = load(4, last_row(0.01))
    with np.load(models / "flowers" / "1" / "golden.npz") as archive:
        assert refusal.facts["picture"] == str(archive["names"][3])


def test_a_row_that_is_no_number_in_a_batch_refuses_the_version(load) -> None:
    def spoil(outputs: Outputs) -> Outputs:
        logits, probabilities = outputs.logits.copy(), outputs.probabilities.copy()
        logits[2] = probabilities[2] = np.nan
        return outputs._replace(logits=logits, probabilities=probabilities)

    refusal, engine = load(4, spoil)
    assert "not softmax" in str(refusal)
    assert engine.closed


def test_a_batch_with_other_rows_than_asked_for_refuses_the_version(load) -> None:
    refusal, _ = load(4, lambda outputs: Outputs(outputs.probabilities[:3], outputs.logits[:3]))
    assert isinstance(refusal, BundleRefused)
    assert "probabilities of shape (3, 3)" in str(refusal)


def test_the_largest_difference_of_all_runs_is_kept(load) -> None:
    """Within the tolerance of 1e-4."""
    model, _ = load(32, last_row(5e-5))
    assert model.golden_difference == pytest.approx(5e-5, rel=0.1)
    assert load()[0].golden_difference < 1e-5


@pytest.mark.parametrize("evidence", [None, np.zeros((1, 2, 4, 4)), np.zeros((1, 3)), np.zeros((2, 3, 4, 4))])
def test_a_model_that_does_not_give_the_evidence_that_it_claims_is_refused(load, evidence) -> None:
    def spoil(outputs: Outputs) -> Outputs:
        return outputs if outputs.evidence is None else outputs._replace(evidence=evidence)

    refusal, engine = load(1, spoil)
    assert "; expected [1, 3, h, w], as the manifest has it" in str(refusal)
    assert engine.closed


def test_a_model_that_claims_no_evidence_is_not_asked_for_it(load, tmp_path: Path, publish_bundle) -> None:
    def refuse(outputs: Outputs) -> Outputs:
        assert outputs.evidence is None
        return outputs

    publish_bundle(tmp_path, evidence=False)
    model, _ = load(1, refuse, tmp_path)
    assert model.bundle.manifest.model.evidence is False


def test_others_get_their_turn_between_the_steps(models: Path) -> None:
    """After reading, after opening the session, and before each picture."""
    runs: list[int] = []
    engines: list[BatchEngine] = []

    def open_engine(bundle: Bundle) -> BatchEngine:
        engines.append(BatchEngine(bundle))
        return engines[-1]

    def pause() -> None:
        runs.append(len(engines[0].rows) if engines else -1)

    loader.load(Repository(models), open_engine, "flowers", 1, pause)
    assert runs[:4] == [-1, 0, 0, 1]
    assert runs[2:] == list(range(engines[0].rows.count(1) - 1)), "the last run of one row is the evidence's"


def test_a_session_is_freed_with_the_last_reference_to_its_model(models: Path) -> None:
    """Without the garbage collector: no cycle holds it."""
    gc.disable()
    try:
        model = loader.load(Repository(models), open_on_cpu, "flowers", 1)
        session = weakref.ref(model.engine._session)
        engine = weakref.ref(model.engine)
        del model
        assert (engine(), session()) == (None, None)
    finally:
        gc.enable()
