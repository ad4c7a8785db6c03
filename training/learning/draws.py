"""Random draws that belong to a key: the same whatever was drawn before, and leaving no trace for what comes after."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


@contextmanager
def drawn_for(key: Sequence[object]) -> Iterator[None]:
    """Inside, torch's global CPU generator starts from `key`; afterwards it goes on as if nothing had been drawn.

    For transforms that take no generator of their own. The generators of CUDA devices are left alone.
    """
    digest = hashlib.sha256(repr(tuple(key)).encode()).digest()
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))  # torch.manual_seed would reseed CUDA too
    try:
        yield
    finally:
        torch.set_rng_state(before)
