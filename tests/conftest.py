"""What the tests share: Collectors, a clean environment, and no silent skip where it counts."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from collectors import Official, Rotel, build_official

_FAMILIES = ("OTEL_", "TELEPORT_", "_TBOT_", "DO_NOT_TRACK")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the machine has set out of the tests."""
    for name in os.environ:
        if name.startswith(_FAMILIES):
            monkeypatch.delenv(name)


@pytest.fixture
def opted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opt in."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")


@pytest.fixture(scope="session")
def rotel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotel]:
    """A rotel, for all tests."""
    with Rotel(tmp_path_factory.mktemp("rotel")).running() as collector:
        yield collector


@pytest.fixture(scope="session")
def official_binary() -> Path:
    """The official Collector's binary, built at its first use."""
    if shutil.which("go") is None:
        pytest.skip("needs Go, to build the official Collector")
    return build_official()


@pytest.fixture(scope="session")
def official(official_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Official]:
    """An official Collector, for all tests."""
    folder = tmp_path_factory.mktemp("official")
    with Official(official_binary, folder).running() as collector:
        yield collector


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped in continuous integration: there, nothing may be missing."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is required here, and was skipped: {report.longrepr}"
    return report
