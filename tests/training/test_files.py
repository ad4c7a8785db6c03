import pytest

from training.files import write_json, write_json_lines


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    write_json(tmp_path / "deep" / "a.json", {"x": 1})
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n  "x": 1\n}\n'


def test_one_document_a_line(tmp_path):
    write_json_lines(tmp_path / "a.jsonl", [{"x": 1}, {"x": 2}])
    assert (tmp_path / "a.jsonl").read_text() == '{"x": 1}\n{"x": 2}\n'
