"""Writes an image's software bill of materials: CycloneDX for programs, and a list of licences for people.

    python bom.py PYTHON FOLDER

PYTHON is the interpreter whose packages are in the image; cyclonedx-bom lists those. To them come the packages of the
base, which are taken from the system that this runs on, and Python itself. The result must follow CycloneDX's schema.
"""

import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

Component = dict[str, Any]

_CYCLONEDX = "1.6"
_CLASSIFIER = "License :: OSI Approved :: "  # what older packages have for a licence
_LONGEST_NAME = 80  # characters; more is the licence's text itself
_LICENCE_FIELDS = (  # run by the image's Python
    "import json, importlib.metadata as found; "
    "print(json.dumps({each.name: each.metadata.get('License') or '' for each in found.distributions()}))"
)
_DOC = Path("/usr/share/doc")


def main() -> None:
    interpreter, folder = sys.argv[1], Path(sys.argv[2])
    query = ["dpkg-query", "--show", "--showformat=${Package}\\t${Version}\\t${Architecture}\\t${source:Package}\\n"]
    bom = packages_of(interpreter)
    name_licences(bom["components"], json.loads(_output([interpreter, "-c", _LICENCE_FIELDS])))
    bom["components"] += [python(platform.python_version()), *base(_output(query), _release(), _DOC)]
    text = json.dumps(bom, indent=1, sort_keys=True) + "\n"
    require_valid(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bom.cdx.json").write_text(text)
    (folder / "licences.txt").write_text(licences(bom))


def packages_of(interpreter: str) -> dict[str, Any]:
    """Reproducible: without a time and a serial number."""
    words = ["environment", "--output-reproducible", "--spec-version", _CYCLONEDX, interpreter]
    bom: dict[str, Any] = json.loads(_output([sys.executable, "-m", "cyclonedx_py", *words]))
    bom["metadata"]["component"] = {"type": "container", "bom-ref": "image", "name": "anther-service"}
    return bom


def name_licences(components: list[Component], fields: dict[str, str]) -> None:
    """Where a package has but a free text for a licence, which cyclonedx-bom leaves out, one line of it is the name."""
    for component in components:
        text = fields.get(component["name"], "")
        if "licenses" not in component and 0 < len(text) <= _LONGEST_NAME and "\n" not in text:
            component["licenses"] = [{"license": {"name": text, "acknowledgement": "declared"}}]


def python(version: str) -> Component:
    """In official images it is no package of the system's."""
    purl = f"pkg:generic/python@{version}"
    licence = {"license": {"id": "PSF-2.0"}}
    return {
        "type": "platform", "bom-ref": purl, "name": "python", "version": version, "purl": purl, "licenses": [licence],
    }  # fmt: skip


def base(listing: str, release: str, documents: Path) -> list[Component]:
    """Debian's packages, of `dpkg-query`'s lines: name, version, architecture and source, with tabs between."""
    found = []
    for line in sorted(set(listing.splitlines())):
        name, version, architecture, source = line.split("\t")
        escaped = version.replace("+", "%2B").replace(":", "%3A").replace("~", "%7E")
        purl = f"pkg:deb/debian/{name.replace('+', '%2B')}@{escaped}?arch={architecture}&distro={release}"
        component: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        component["properties"] = [{"name": "debian:source", "value": source}]
        if named := _licences_of(documents / name / "copyright"):
            component["licenses"] = [{"license": {"name": each}} for each in named]
        found.append(component)
    return found


def licences(bom: dict[str, Any]) -> str:
    """One line a component: name, version, licences. Their texts lie with the packages and in /usr/share/doc."""
    rows = [(each["name"], each.get("version", ""), _named(each)) for each in bom["components"]]
    rows.sort(key=lambda row: row[0].lower())
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    return "".join(f"{name:{widths[0]}}  {version:{widths[1]}}  {named}\n" for name, version, named in rows)


def require_valid(text: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.from_version(_CYCLONEDX)).validate_str(text)
    if error is not None:
        sys.exit(f"bom: the result is no CycloneDX {_CYCLONEDX}: {error}")


def _named(component: Component) -> str:
    found = component.get("licenses", [])
    names = [each.get("expression") or each["license"].get("id") or each["license"].get("name") for each in found]
    elsewhere = (
        f"see {_DOC / component['name']}/copyright"
        if component.get("purl", "").startswith("pkg:deb/")
        else "not stated in its metadata"
    )
    return ", ".join(each.removeprefix(_CLASSIFIER) for each in dict.fromkeys(names)) or elsewhere


def _licences_of(copyright_file: Path) -> list[str]:
    """The names in a file of Debian's machine-readable format; none where it has another."""
    text = copyright_file.read_text(errors="replace") if copyright_file.is_file() else ""
    if not text.startswith("Format:"):
        return []
    names = re.findall(r"^License:[ \t]*(\S.*?)\s*$", text, re.MULTILINE)
    return sorted(set(names))


def _release() -> str:
    facts = platform.freedesktop_os_release()
    return f"{facts['ID']}-{facts.get('VERSION_ID', '')}"


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
