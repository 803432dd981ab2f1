"""The public names, the entry points, and the installed package."""

import importlib
import importlib.metadata
import inspect
import os
import re
from importlib import resources
from pathlib import Path

import pytest

import tbot_otel
from support.paths import ROOT
from tbot_otel import testing

PUBLIC_NAMES = [
    "Consent",
    "InvalidEventError",
    "OptInLogRecordProcessor",
    "OptInSampler",
    "Outcome",
    "Reason",
    "Session",
    "StartEvent",
    "Status",
    "TbotLogExporter",
    "TbotOtelError",
    "TbotResourceDetector",
    "__version__",
    "record_start",
]
TESTING_NAMES = [
    "REFUSALS",
    "AuditReport",
    "Auditor",
    "Finding",
    "RecordedStart",
    "StartReceiver",
    "tbot_silence",
    "tbot_starts",
]


def test_all() -> None:
    """The package has these public names and no others."""
    assert tbot_otel.__all__ == PUBLIC_NAMES
    assert dir(tbot_otel) == PUBLIC_NAMES


def test_names_of_the_pytest_plugin() -> None:
    """The plugin has these public names and no others, and each is documented."""
    assert testing.__all__ == TESTING_NAMES
    for name in TESTING_NAMES:
        assert getattr(testing, name).__doc__


def test_lazy_exports() -> None:
    """Each public name except the version is loaded on first use."""
    assert sorted([*tbot_otel._LAZY_EXPORTS, "__version__"]) == sorted(tbot_otel.__all__)


@pytest.mark.parametrize("name", [name for name in PUBLIC_NAMES if name != "__version__"])
def test_public_name(name: str) -> None:
    """A public name loads, has this name in its module, and has a docstring."""
    value = getattr(tbot_otel, name)
    assert value.__name__ == name
    assert value.__module__.startswith("tbot_otel.")
    # A class without a docstring inherits its base's.
    assert vars(value)["__doc__"] if inspect.isclass(value) else value.__doc__
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert getattr(tbot_otel, name) is value


def test_unknown_name() -> None:
    """An unknown name raises the usual AttributeError."""
    with pytest.raises(AttributeError, match=r"^module 'tbot_otel' has no attribute 'anything'$"):
        getattr(tbot_otel, "anything")  # noqa: B009 - mypy would report it


def test_version() -> None:
    """The version is that of the distribution."""
    assert importlib.metadata.version("tbot-otel") == tbot_otel.__version__


# Files that name a release for another reason, which stays true after the next one.
NAME_RELEASES = {
    "CHANGELOG.md",
    "benchmarks/results/run.txt",  # the release that was measured
    "docs/release.md",  # an example
    "docs/events.md",  # generated from the registry
    # Pinned there; tests/test_example_files.py compares them with the version.
    "examples/relay/Containerfile",
    "examples/relay/kubernetes.yaml",
    "examples/run/Containerfile",
    "examples/run/actions.yaml",
    "examples/run/workflow.yaml",
    "examples/run/sidecar.yaml",  # the tag of the reader's own image
    "src/tbot_otel/cli/events.py",  # an example
    "src/tbot_otel/registry.py",  # the release that added an attribute
}


def test_version_is_in_one_place() -> None:
    """To release a version, one line is changed, besides the changelog."""
    root = ROOT
    files = [path for path in root.glob("*") if path.is_file()]
    for folder in ("src", "docs", "examples", "benchmarks", ".github"):
        files += (path for path in (root / folder).rglob("*") if path.is_file())
    version = re.compile(rf"(?<![\d.]){re.escape(tbot_otel.__version__)}(?![\d.])")
    found = {
        path.relative_to(root).as_posix(): len(version.findall(path.read_text(errors="replace")))
        for path in files
        if path.suffix != ".pyc"
    }
    stated = {name: count for name, count in found.items() if count and name not in NAME_RELEASES}
    assert stated == {"src/tbot_otel/__init__.py": 1}


def test_typed() -> None:
    """The package is marked as typed."""
    assert (resources.files("tbot_otel") / "py.typed").is_file()


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("console_scripts", "tbot-otel", "tbot_otel.cli:main"),
        ("opentelemetry_logs_exporter", "tbot", "tbot_otel.pipeline.exporter:TbotLogExporter"),
        ("pyinstaller40", "hook-dirs", "tbot_otel._pyinstaller:get_hook_dirs"),
        (
            "opentelemetry_resource_detector",
            "tbot",
            "tbot_otel.pipeline.resource:EntryPointResourceDetector",
        ),
    ],
)
def test_entry_points(group: str, name: str, value: str) -> None:
    """The command and the plugins are declared once each and load."""
    own = importlib.metadata.distribution("tbot-otel").entry_points
    (entry_point,) = own.select(group=group, name=name)
    assert entry_point.value == value
    assert callable(entry_point.load())


def test_no_other_entry_points() -> None:
    """The package has no other entry points."""
    assert len(importlib.metadata.distribution("tbot-otel").entry_points) == 4


def test_installed() -> None:
    """In continuous integration, the tests import the installed package, not the checkout."""
    from_checkout = ROOT / "src" in Path(tbot_otel.__file__).parents
    assert not (from_checkout and os.environ.get("CI"))
