"""Every link, path, variable, option and example in the documentation exists and works."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from support.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
# The README is also a page on PyPI, where links have to be absolute.
REPOSITORY = re.compile(r"^https://github\.com/tbot-otel/tbot-otel/(?:blob|tree)/main/")
EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").rglob("*")
    if path.is_file() and path.parent.name != "__pycache__"
)


def relative_path(path: Path) -> str:
    """The path in the ids of tests."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_links(page: Path) -> None:
    """Every link to a file of the project, and to a heading in it, leads there."""
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
        r"^\[.+?\]: (\S+)", text, re.MULTILINE
    )
    missing = []
    for link in links:
        path, _, heading = REPOSITORY.sub("", link).partition("#")
        if path.startswith(("http://", "https://")):
            continue
        folder = ROOT if REPOSITORY.match(link) else page.parent
        target = folder / path if path else page
        if not target.exists() or (heading and heading not in headings(target)):
            missing.append(link)
    assert missing == []


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_links_of_the_readme() -> None:
    """The README's links are absolute, and each label has one definition and is used."""
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"\]\((?!https?://|#)", text) == []
    defined = re.findall(r"^\[(.+?)\]: ", text, re.MULTILINE)
    assert sorted(defined) == sorted(set(re.findall(r"\]\[(.+?)\]", text)))


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_paths(page: Path) -> None:
    """Every path of the project in a page exists."""
    folders = "benchmarks|docs|examples|src|tests"
    named = re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]*\w", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=relative_path)
def test_examples_are_named(example: Path) -> None:
    """Every example is named in a page."""
    assert any(relative_path(example) in page.read_text() for page in PAGES)


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=relative_path)
def test_variables(page: Path) -> None:
    """Every variable in a page or example is read by this package or by OpenTelemetry."""
    known = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for module in (
        "opentelemetry.environment_variables",
        "opentelemetry.sdk.environment_variables",
    ):
        known += Path(str(importlib.import_module(module).__file__)).read_text()
    named = set(re.findall(r"\b(?:OTEL|TELEPORT|_TBOT)_[A-Z_]+|DO_NOT_TRACK", page.read_text()))
    # The oldest supported SDK does not have it.
    named -= {"OTEL_CONFIG_FILE"}
    assert sorted(name for name in named if name not in known) == []
