import subprocess

from training import provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_a_commit_is_named_only_where_it_is_what_ran(tmp_path):
    """No repository, code outside of it, changed files: no commit; all committed: its digest."""
    assert provenance.git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "provenance.py").write_text("x")
    assert provenance.git_commit(tmp_path) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    commit = provenance.git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "provenance.py").write_text("changed")
    assert provenance.git_commit(tmp_path) is None


def test_libraries_and_codecs_are_named():
    found = provenance.versions()
    assert {"python", "anther", "torch", "pillow", "onnx", "codec:libjpeg_turbo", "codec:webp"} <= set(found)
    assert all(found.values())
