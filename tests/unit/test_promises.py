"""Each promise and each fault in the documentation names code and tests that exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from support.paths import ROOT
from tbot_otel.registry import RESOURCE, START, Attribute

PRIVACY = ROOT / "docs" / "privacy.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
PAGES = [PRIVACY, RELIABILITY]
CODE = re.compile(r"`([\w.]+)` in `(src/[\w/]+\.py)`")
TEST = re.compile(r"`([a-z/]+/test_\w+\.py)::(test_\w+)(\[[^`]+\])?`")


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of each row of the tables in a section, without the heads."""
    section = page.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return cells[2:]


def defined_names(path: Path) -> set[str]:
    """The names that a module defines, and ``Class.name`` for those of its classes."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        for name in assigned_names(node):
            names.add(name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{name}.{inner}" for each in node.body for inner in assigned_names(each)}
    return names


def assigned_names(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_exists(page: Path) -> None:
    """Each name is in the module that the page says."""
    named = CODE.findall(page.read_text())
    assert named
    assert [each for each in named if each[0] not in defined_names(ROOT / each[1])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_exist(page: Path) -> None:
    """Each test is in the file that the page says."""
    named = TEST.findall(page.read_text())
    assert named
    missing = [each for each in named if each[1] not in defined_names(ROOT / "tests" / each[0])]
    assert missing == []


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        (PRIVACY, "Promises, code and tests"),
        (RELIABILITY, "The Collector"),
        (RELIABILITY, "The connection to the Collector"),
        (RELIABILITY, "Processes, threads and signals"),
        (RELIABILITY, "The machine"),
    ],
)
def test_each_row_names_a_test(page: Path, heading: str) -> None:
    """Each promise names its code and a test, and each fault names a test."""
    table = rows(page, heading)
    assert len(table) > 3
    for row in table:
        assert TEST.search(row[-1]), row
        assert page != PRIVACY or CODE.search(row[-2]), row


def test_limits() -> None:
    """Each limit is the value of its constant."""
    for what, limit, place in rows(RELIABILITY, "Limits"):
        ((name, path),) = CODE.findall(place)
        module = path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__")
        (number,) = re.findall(r"[\d.]+", limit)[:1]
        assert float(number) == getattr(importlib.import_module(module.replace("/", ".")), name), (
            what
        )


# Better known than the first one of their list.
COMMON_VALUES = ("kubernetes", "linux")


def summary_row(attribute: Attribute) -> str:
    """A row of the list of what leaves."""
    example = next(
        value for value in (*COMMON_VALUES, *attribute.examples) if value in attribute.examples
    )
    sometimes = " Not in every record." if attribute.optional else ""
    return f"| `{attribute.name}` | {attribute.brief}{sometimes} | `{example}` |"


def test_what_leaves() -> None:
    """The page lists each attribute of the registry, as the registry describes it."""
    expected = [summary_row(attribute) for attribute in (*START.attributes, *RESOURCE)]
    found = re.findall(
        r"^\| `(?:tbot|service|session|os|host|telemetry)\..*$", PRIVACY.read_text(), re.MULTILINE
    )
    assert found == expected, "docs/privacy.md has to contain:\n" + "\n".join(expected)
