"""Each block of Python in README and docs runs as it is printed, put into a file of its own beside a server."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFAULT_TARGET, DEFAULT_URL = "localhost:8001", "localhost:8000"
BLOCKS = {
    f"{page.name} {number}": code
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """The repository's folder, as far as examples read it, where they may also write."""
    for name in ("examples", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_as_it_is_printed(start_edge, folder: Path, block: str) -> None:
    code = BLOCKS[block]
    asks = "from anther import" in code
    assert (DEFAULT_TARGET in code) is asks, "a client names the server that it asks"
    if asks or DEFAULT_URL in code:
        edge = start_edge()
        code = code.replace(DEFAULT_TARGET, f"127.0.0.1:{edge.port}")
        code = code.replace(DEFAULT_URL, f"127.0.0.1:{edge.http.port}")
    exec(compile(code, block, "exec"), {"__name__": "__main__"})
    if "overlay_png" in code:
        assert (folder / "why-daisy.png").read_bytes().startswith(b"\x89PNG")
