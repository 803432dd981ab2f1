"""Run mutmut, and fail on a mutant that survives and is not explained in ``mutants.toml``.

``nox --session mutation``: pyproject.toml names the modules and their tests.
"""

import ast
import difflib
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path("mutants", "src")
EXPLAINED = Path(__file__).with_suffix(".toml")
FINE = ("killed", "timeout")
MAX_MEMORY_BYTES = 2 * 2**30


def survivors() -> Iterator[tuple[str, str]]:
    """Yield each mutant that survived: its function, and the lines that it changes."""
    command = (sys.executable, "-m", "mutmut", "results")
    results = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in results.splitlines():
        name, colon, status = line.strip().partition(": ")
        if not colon or status in FINE:
            continue
        module, _, mutant = name.rpartition(".")
        function = mutant.rpartition("__mutmut_")[0]
        original = source_of(module, f"{function}__mutmut_orig")
        changed = source_of(module, mutant)
        lines = [
            line.removeprefix("+").strip()
            for line in difflib.unified_diff(original, changed, lineterm="", n=0)
            if line.startswith("+") and not line.startswith("+++")
        ]
        # Where a mutant only removes lines, it has none of its own.
        yield f"{module}.{function}", " ".join(lines)


def source_of(module: str, function: str) -> list[str]:
    """Return the lines of a function of a mutated module, without its name."""
    path = FOLDER.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    (node,) = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    return ast.unparse(node).replace(function, "", 1).splitlines()


class _Collected:
    """A pytest plugin that keeps the ids of the tests."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.ids = {item.nodeid for item in items}


def collect() -> set[str]:
    """Return the ids of the tests that mutmut runs."""
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    selection = settings["pytest_add_cli_args_test_selection"]
    collected = _Collected()
    arguments = [*settings["pytest_add_cli_args"], "--collect-only", "-qq", *selection]
    pytest.main(arguments, plugins=[collected])
    return collected.ids


def main() -> int:
    """Run mutmut, compare its survivors with those that are explained, and name the differences."""
    # mutmut collects the tests more than once in a process. A test that it does not find again
    # would count as one that fails, and each mutant as killed.
    if changed := collect() ^ collect():
        print(f"expected ids that stay the same: {sorted(changed)}")
        return 1
    # A mutant without a limit reads /dev/zero, and would take the memory of the machine.
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    subprocess.run((sys.executable, "-m", "mutmut", "run", *sys.argv[1:]), check=False)
    explained = {
        (entry["function"], entry["change"])
        for entry in tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))["equivalent"]
        if entry["reason"]
    }
    found = set(survivors())
    for function, change in sorted(found - explained):
        print(f"survived: function = {function!r}, change = {change!r}")
    for function, change in sorted(explained - found):
        print(f"no longer survives: function = {function!r}, change = {change!r}")
    return int(found != explained)


if __name__ == "__main__":
    raise SystemExit(main())
