"""Every library that the source imports is declared, in the extra that uses it.

deptry, in the lint session, checks top-level names. Here, modules of namespace packages such as
`opentelemetry` and `google` are checked too.
"""

import ast
import csv
import functools
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import tbot_otel

SOURCE = Path(tbot_otel.__file__).parent
# The folders and modules that need an extra, and the extras that install what they import.
EXTRAS = {
    "run": {"run"},
    "connect": {"run"},
    "relay": {"run", "relay"},
    "report": {"report"},
    "cli/completion.py": {"completion"},
    "testing": {"testing"},
}
# PyInstaller runs its hook itself, and only a SOCKS proxy needs PySocks.
OPTIONAL = {
    "_pyinstaller/hook-tbot_otel.py": {"pyinstaller"},
    "otlp/connection.py": {"pysocks"},
}
# A distribution that only requires another one, which has the modules.
PARTS = {"protobuf-py-pure": "protobuf-py"}


def imported_modules(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports from other packages."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from package import name` imports a module or a name in one.
            names = [str(node.module)]
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "tbot_otel":
                yield name


@functools.cache
def requirements() -> list[str]:
    """The requirements of this package."""
    return importlib.metadata.requires("tbot-otel") or []


def declared(extras: set[str]) -> set[str]:
    """The distributions that this package requires, with some of its extras."""
    required = set()
    for requirement in requirements():
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if extra is None or extra[1] in extras:
            required.add(normalize(re.split(r"[^\w.-]", requirement)[0]))
    return required


def normalize(name: str) -> str:
    """A distribution's name in the form that indexes compare (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def file_of(module: str) -> str | None:
    """The file of a module; None for a namespace, and for a name that is not a module."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return spec.origin if spec is not None and spec.has_location else None


@pytest.fixture(scope="module")
def owner_of() -> dict[str, str]:
    """The distribution that installed each file."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # Read once: it parses the metadata each time.
        name = distribution.name
        folder = str(distribution.locate_file(""))
        # Without the paths that `files` makes of each line.
        for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
            found[os.path.join(folder, row[0])] = name  # noqa: PTH118 - tens of thousands
    return found


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_imports_are_declared(path: Path, owner_of: dict[str, str]) -> None:
    """The distribution of each imported module is a declared dependency."""
    relative = path.relative_to(SOURCE)
    extras = EXTRAS.get(relative.as_posix(), EXTRAS.get(relative.parts[0], set()))
    files = {file_of(module) for module in imported_modules(path)} - {None}
    used = {PARTS.get(name, name) for name in (normalize(owner_of[str(file)]) for file in files)}
    assert used - declared(extras) <= OPTIONAL.get(relative.as_posix(), set())


def test_namespaces_are_seen(owner_of: dict[str, str]) -> None:
    """The check finds the distribution of a module in a namespace package."""
    module = "opentelemetry.proto.logs.v1.logs_pb2"
    assert owner_of[str(file_of(module))] == "opentelemetry-proto"
    assert owner_of[str(file_of("google.protobuf.message"))] == "protobuf"
