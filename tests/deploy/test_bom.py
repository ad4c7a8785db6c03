"""The image's bill of materials: what comes to the Python packages, and the list of licences that is made of it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

LISTING = "zlib1g\t1:1.2.13.dfsg-1\tamd64\tzlib\nlibc6\t2.36-9+deb12u7\tamd64\tglibc\n"


@pytest.fixture(scope="module")
def bom(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bom", root / "deploy/bom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_packages_of_the_base_have_names_that_scanners_know(bom, tmp_path) -> None:
    """The package URL is that of https://github.com/package-url/purl-spec, type deb."""
    libc, zlib = bom.base(LISTING, "debian-12", tmp_path)
    assert zlib["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64&distro=debian-12"
    assert libc["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u7?arch=amd64&distro=debian-12"
    assert zlib["properties"] == [{"name": "debian:source", "value": "zlib"}]


def test_a_licence_that_is_but_a_line_of_text_is_named(bom) -> None:
    components = [{"name": "protobuf"}, {"name": "long"}, {"name": "click", "licenses": [{"expression": "MIT"}]}]
    bom.name_licences(
        components, {"protobuf": "3-Clause BSD License", "long": "Permission is\nhereby", "click": "other"}
    )
    assert [each.get("licenses") for each in components] == [
        [{"license": {"name": "3-Clause BSD License", "acknowledgement": "declared"}}],
        None,
        [{"expression": "MIT"}],
    ]


def test_licences_are_listed_by_component(bom, tmp_path) -> None:
    (tmp_path / "zlib1g").mkdir()
    (tmp_path / "zlib1g/copyright").write_text(
        "Format: 1.0\n\nFiles: *\nLicense: Zlib\n\nFiles: x\nLicense: Zlib\n\nLicense: GPL-2+\n text\n"
    )
    components = [
        *bom.base(LISTING, "debian-12", tmp_path),
        bom.python("3.11.9"),
        {"name": "click", "version": "8.5.1", "licenses": [{"expression": "BSD-3-Clause"}]},
        {"name": "Old", "version": "1", "licenses": [{"license": {"name": "License :: OSI Approved :: MIT License"}}]},
        {"name": "silent", "version": "1", "purl": "pkg:pypi/silent@1"},
    ]
    assert [line.split(maxsplit=2) for line in bom.licences({"components": components}).splitlines()] == [
        ["click", "8.5.1", "BSD-3-Clause"],
        ["libc6", "2.36-9+deb12u7", "see /usr/share/doc/libc6/copyright"],
        ["Old", "1", "MIT License"],
        ["python", "3.11.9", "PSF-2.0"],
        ["silent", "1", "not stated in its metadata"],
        ["zlib1g", "1:1.2.13.dfsg-1", "GPL-2+, Zlib"],
    ]


def test_the_result_follows_the_schema(bom, tmp_path) -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx-bom is installed where images are built")
    record = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "components": [bom.python("3.11.9"), *bom.base(LISTING, "debian-12", tmp_path)],
    }  # fmt: skip
    bom.require_valid(bom.json.dumps(record))
