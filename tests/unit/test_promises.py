"""Each promise and each fault in the documentation has code and tests that exist."""

import ast
import functools
import re
from pathlib import Path

from support.paths import ROOT

PROOF = ROOT / "docs" / "proof.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
CODE = re.compile(r"`([\w.]+)` in `(src/[\w/]+\.py)`")
TEST = re.compile(r"`([a-z/]+/test_\w+\.py)::(test_\w+)(\[[^`]+\])?`")


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of each row of the tables in a section, without the heads."""
    section = page.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return cells[2:]


@functools.cache
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


def test_code_exists() -> None:
    """Each name is in the module that the page says."""
    named = CODE.findall(PROOF.read_text())
    assert [each for each in named if each[0] not in defined_names(ROOT / each[1])] == []


def test_tests_exist() -> None:
    """Each test is in the file that the page says."""
    named = TEST.findall(PROOF.read_text())
    missing = [each for each in named if each[1] not in defined_names(ROOT / "tests" / each[0])]
    assert missing == []


def test_each_promise_has_code_and_tests() -> None:
    """Each promise names its code and a test."""
    promises = rows(PROOF, "Promises")
    assert promises
    for _, code, tests in promises:
        assert CODE.fullmatch(code)
        assert TEST.search(tests), code


def test_each_fault_has_tests() -> None:
    """Each fault of the page about faults names a test, and no other fault does."""
    text = RELIABILITY.read_text().partition("\n## The Collector\n")[2].partition("\n## Gaps\n")[0]
    faults = re.findall(r"^- \*\*(.+?)\*\*: ", text, re.MULTILINE)
    assert faults
    proven = rows(PROOF, "Faults")
    assert [fault for fault, _ in proven] == faults
    assert [fault for fault, tests in proven if not TEST.search(tests)] == []
