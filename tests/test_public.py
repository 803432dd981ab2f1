"""What the package shows to the outside: its names, its entry points, and what is installed."""

import importlib
import importlib.metadata
import inspect
import os
import pkgutil
from importlib import resources
from pathlib import Path

import pytest

import tbot_otel
from collectors import run

PUBLIC = [
    "BotConfigError",
    "Consent",
    "ExporterConfigurationError",
    "InvalidEventError",
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
ROOMS = [
    module.name
    for module in pkgutil.walk_packages(tbot_otel.__path__, "tbot_otel.")
    # The one runs at once, the other is generated.
    if module.name not in ("tbot_otel.__main__", "tbot_otel.connect.tbot_pb")
]


def test_all() -> None:
    """The public names are these, and nothing else is offered."""
    assert tbot_otel.__all__ == PUBLIC
    assert dir(tbot_otel) == PUBLIC
    assert {*tbot_otel._HOMES, "__version__"} == {*PUBLIC}


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_names(name: str) -> None:
    """A public name loads, calls itself so, and has a docstring of its own."""
    value = getattr(tbot_otel, name)
    assert value.__name__ == name
    assert value.__module__.startswith("tbot_otel.")
    # A class's own: a class without one would show its base's.
    assert vars(value)["__doc__"] if inspect.isclass(value) else value.__doc__
    assert getattr(tbot_otel, name) is value


def test_unknown_name() -> None:
    """Any other name is missing, as from any module."""
    with pytest.raises(AttributeError, match=r"^module 'tbot_otel' has no attribute 'anything'$"):
        getattr(tbot_otel, "anything")  # noqa: B009 - the checkers know that it is missing


@pytest.mark.parametrize("name", ROOMS)
def test_rooms(name: str) -> None:
    """Every room can be imported first, and says what it is for."""
    done = run("-c", f"import {name}; print({name}.__doc__)")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout != "None\n"


def test_version() -> None:
    """The version is the distribution's."""
    assert importlib.metadata.version("tbot-otel") == tbot_otel.__version__


def test_typed() -> None:
    """Type checkers are told that there are types."""
    assert (resources.files("tbot_otel") / "py.typed").is_file()


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("console_scripts", "tbot-otel", "tbot_otel.cli:main"),
        ("opentelemetry_logs_exporter", "tbot", "tbot_otel.exporter:TbotLogExporter"),
        ("opentelemetry_resource_detector", "tbot", "tbot_otel.resource:TbotResourceDetector"),
    ],
)
def test_entry_points(group: str, name: str, value: str) -> None:
    """The command and the plugins are declared, once each, and load."""
    (entry_point,) = importlib.metadata.entry_points(group=group, name=name)
    assert entry_point.value == value
    assert callable(entry_point.load())


def test_no_other_entry_points() -> None:
    """Nothing else of ours is plugged in anywhere."""
    assert len(importlib.metadata.distribution("tbot-otel").entry_points) == 3


def test_installed() -> None:
    """In continuous integration, what is tested is what people install, not the checkout."""
    from_checkout = Path(__file__).parents[1] / "src" in Path(tbot_otel.__file__).parents
    assert not (from_checkout and os.environ.get("CI"))
