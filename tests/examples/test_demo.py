"""`make demo` shows its own lines, and those of pip only where the installation fails; its last lines are commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = r"""#!/bin/sh
# `python -m venv DIR` that makes a pip, which warns and ends as it is told to, and a python, which is the demo.
mkdir -p "$3/bin"
cat >"$3/bin/pip" <<end
#!/bin/sh
echo "WARNING: a location is ignored" >&2
echo "ERROR: no disk" >&2
exit $PIP_ENDS
end
printf '#!/bin/sh\necho daisy 0.999\n' >"$3/bin/python"
chmod +x "$3/bin/pip" "$3/bin/python"
"""


@pytest.fixture
def make_demo(tmp_path: Path):
    """`make_demo(0)` runs `make demo` in a folder without an environment, with a pip that ends so."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(pip_ends: int) -> "subprocess.CompletedProcess[str]":
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        return subprocess.run(
            ["make", "demo", f"PYTHON={python}"],
            cwd=tmp_path,
            env={**environment, "PIP_ENDS": str(pip_ends)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_what_pip_warns_of_is_kept_off_the_screen(make_demo, tmp_path: Path) -> None:
    done = make_demo(0)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["Installing Anther with [cpu] into .venv …", "daisy 0.999"]
    assert "a location is ignored" in (tmp_path / ".venv/install.log").read_text()
    assert make_demo(1).stdout.splitlines() == ["daisy 0.999"]  # installed once


def test_an_installation_that_fails_is_shown_and_tried_again(make_demo) -> None:
    done = make_demo(1)
    assert done.returncode != 0
    assert "ERROR: no disk" in done.stderr
    assert "daisy" not in done.stdout
    assert make_demo(0).returncode == 0


@pytest.fixture
def run_demo(tmp_path: Path, publish_bundle):
    """`run_demo()` runs the demo of a checkout in which a model of the user's lies beside the embedded one."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "models", tmp_path / "models")
    publish_bundle(tmp_path / "models", "garden")

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "examples/demo.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def test_the_embedded_model_answers_beside_others(run_demo) -> None:
    done = run_demo()
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 of 3 answered by flowers/" in done.stdout
    assert "anther serve --default-model flowers\n" in done.stdout


def test_a_demo_that_fails_names_no_commands_for_afterwards(run_demo, tmp_path: Path) -> None:
    (tmp_path / "examples/daisy.jpg").write_bytes(b"junk")
    done = run_demo()
    assert done.returncode == 1
    assert "2 of 3 answered" in done.stdout
    shutil.rmtree(tmp_path / "models/flowers")
    silent = run_demo()
    assert silent.returncode == 1
    assert "the server did not start" in silent.stderr
    assert "Serve it yourself" not in done.stdout + silent.stdout


def test_the_demo_answers_and_names_commands_that_are_there() -> None:
    command = [sys.executable, "examples/demo.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 of 3 answered by flowers/" in done.stdout
    serve, classify = (line.split(":", 1)[1].split() for line in done.stdout.splitlines()[-2:])
    assert (serve[1:], classify[1:]) == (["serve"], ["classify", "examples/daisy.jpg"])
    assert os.access(ROOT / serve[0], os.X_OK)
    assert serve[0] == classify[0]
    assert (ROOT / classify[2]).is_file()
