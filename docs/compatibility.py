"""Print docs/compatibility.md: the versions that are tested, from the lock files."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

HEAD = """# Tested versions

tbot-otel sets no upper bounds, because a bound would also keep fixes from you. These are the
versions that the tests run with; a lower bound below the oldest is not tested.
`requirements/oldest.txt` and `requirements/newest.txt` have all versions, also of indirect
dependencies, and their hashes.

| part | oldest | newest |
| --- | --- | --- |
"""
TAIL = """
With two versions, the later one is for a later Python. All tests run with the newest versions on
the newest Python, and those that depend on the SDK also with the oldest versions on the oldest
Python. The Pythons between run a part of them. The tests run on Linux.

To have the newest versions of this table and no later ones:

```console
$ uv pip install --constraints requirements/newest.txt 'tbot-otel[relay]'
```

## Interpreters and platforms

- **Fork.** A second thread sends a start, so CPython 3.12 and later warn at a fork at that time
  (`DeprecationWarning`). The child can record and send starts of its own.
- **Sub-interpreters** cannot send in the background: `record_start` is `FAILED`.
- **`-X lazy_imports=all`** (CPython 3.15) breaks protobuf's generated modules: a start is `FAILED`.
- **Free-threaded builds**: grpcio has no wheels for them.
- **Alpine**: DuckDB has no wheel for musl, so the extra `report` does not install. The others do.
"""


def normalize(name: str) -> str:
    """The form of a distribution's name that lock files have (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(group: str) -> dict[str, str]:
    """The versions of each distribution in a lock file."""
    versions: dict[str, list[str]] = {}
    text = (ROOT / "requirements" / f"{group}.txt").read_text()
    for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", text):
        versions.setdefault(normalize(name), []).append(version)
    return {name: ", ".join(found) for name, found in versions.items()}


def render() -> str:
    """Return the page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classifiers = "\n".join(project["classifiers"])
    pythons = re.findall(r"Python :: (3\.\d+)", classifiers)
    builder = (ROOT / "tests" / "support" / "builder-config.yaml").read_text()
    (collector,) = re.findall(r"otlpreceiver v(\S+)", builder)
    oldest, newest = locked("oldest"), locked("newest")
    rows = [
        ("CPython", pythons[0], pythons[-1]),
        ("OpenTelemetry Collector", collector, collector),
        ("rotel", oldest["rotel"], newest["rotel"]),
    ]
    for extra, requirements in (
        ("", project["dependencies"]),
        *project["optional-dependencies"].items(),
    ):
        for requirement in requirements:
            name = re.split(r"[^\w.-]", requirement)[0]
            if name != project["name"]:
                label = f"{name}, extra `{extra}`" if extra else name
                rows.append((label, oldest[normalize(name)], newest[normalize(name)]))
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows) + TAIL


if __name__ == "__main__":
    print(render(), end="")
