import sys

import pytest

from training.errors import LibraryMissing
from training.inference import onnx_runtime


def test_without_the_library_it_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what an absent module looks like to `import`
    with pytest.raises(LibraryMissing, match=r"pip install 'anther\[cpu\]'"):
        onnx_runtime.session(b"")
