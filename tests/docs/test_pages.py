"""What the pages print is there: paths, links, commands and their options, environment variables, metrics, alerts."""

import re
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from anther import cli
from service.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TOP = ("anther", "bundle", "service", "training", "proto", "tests", "benchmarks", "examples", "deploy", "docs")
MAX_README_LINES = 130
OF_OTHER_PROGRAMS = frozenset(
    (
        "--help",
        "--build-arg",
        "--entrypoint",
        "--generate-hashes",
        "--keep",
        "--require-hashes",
        "--rm",
        "--universal",
        "--enable-feature",  # Prometheus
        "--no-deps",
        "--streaming",
        "--callers",
        "--seconds",
        "--rounds",
        "--only",
        "--compile",
        "--epochs",
        "--nproc-per-node",
    )
)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


def command_lines(page: Path) -> list[list[str]]:
    """Words of each `anther` command, in blocks and in sentences, up to a comment."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    blocks = [text for language, text in fences if not language]
    lines = [*"\n".join(blocks).splitlines(), *inline_code(page)]
    commands = [re.search(r"(?:^|-m )anther ([a-z][^#]*)", line) for line in lines]
    return [found[1].split() for found in commands if found]


def command_of(words: list[str]) -> click.Command:
    """The command that the first words name."""
    found: click.Command = cli.cli
    for word in words:
        if not isinstance(found, click.Group):
            return found
        inner = found.get_command(click.Context(found), word.partition("|")[0])
        assert inner is not None, f"no command '{word}'"
        found = inner
    return found


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def every_command(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    context = click.Context(command)
    inner = (command.get_command(context, name) for name in command.list_commands(context))
    return [each for found in inner if found is not None for each in every_command(found)]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < MAX_README_LINES


@pages
def test_paths_exist(page: Path) -> None:
    paths = [code for code in inline_code(page) if re.fullmatch(rf"(?:{'|'.join(TOP)})/[\w./-]*", code)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pages
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in command_lines(page):
        known = options_of(command_of(words)) | {"--help"}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= known, words


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_options_in_sentences_exist(page: Path) -> None:
    """The changelog also names what was removed."""
    known = OF_OTHER_PROGRAMS.union(*map(options_of, every_command(cli.cli)))
    given = {word for code in inline_code(page) for word in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)}
    assert given - known == set()


@pytest.mark.parametrize("package", ["service", "training"])
def test_the_map_has_the_layers_that_import_linter_checks(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (found["layers"] for found in contracts if found.get("containers") == [package])
    drawn = re.search(rf"^{package}: ([^:`]+)(?=^\w|```)", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert drawn is not None
    assert [set(re.findall(r"\w+", layer)) for layer in drawn[1].split("→")] == [
        set(re.findall(r"\w+", layer)) for layer in layers
    ]


def test_the_page_for_operators_names_every_metric() -> None:
    metrics = Metrics()
    metrics.watch(lambda: 0, lambda: 0, lambda: 0)
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
        if family.name.startswith("anther_")
    }
    of_supervisor = {"anther_worker_restarts_total"}
    page = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"^\| `(anther_\w+)`", page, flags=re.MULTILINE)) == families | of_supervisor


def test_the_page_for_operators_names_every_alert() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert alerts == set(re.findall(r"`(Anther[A-Z]\w+)`", (ROOT / "docs/operations.md").read_text()))
