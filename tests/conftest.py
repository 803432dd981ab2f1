"""Fixtures that the tests share: Collectors and a clean environment."""

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support.clickhouse import clickhouse_problem
from support.collectors import Collector, MakeCollector, Official, Rotel, build_official
from tbot_otel.testing._environment import telemetry_variables

# A script's background job ignores these, and the processes under test would inherit that.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        is_interrupt = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's own settings of telemetry."""
    for name in telemetry_variables():
        monkeypatch.delenv(name)


@pytest.fixture
def opted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opt in."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")


@pytest.fixture(scope="session")
def rotel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotel]:
    """A rotel. Its tests are left out where it does not run."""
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
    """An official Collector."""
    folder = tmp_path_factory.mktemp("official")
    with Official(official_binary, folder).running() as collector:
        yield collector


@pytest.fixture(scope="session")
def collector(request: pytest.FixtureRequest) -> Collector:
    """A Collector: rotel, or the official one where rotel does not run."""
    collector: Collector = request.getfixturevalue("official" if Rotel.problem() else "rotel")
    return collector


@pytest.fixture
def chdb() -> None:
    """ClickHouse's engine. Its tests are left out where it has no library."""


@pytest.fixture
def make_collector(request: pytest.FixtureRequest) -> MakeCollector:
    """Make a Collector that does not run yet: of the same kind as ``collector``."""
    if Rotel.problem() is None:
        return Rotel
    binary: Path = request.getfixturevalue("official_binary")
    return lambda folder, http_port: Official(binary, folder, http_port)


def problems() -> dict[str, str]:
    """The fixtures whose server does not run here, each with the reason."""
    found = {"rotel": Rotel.problem(), "chdb": clickhouse_problem()}
    return {name: problem for name, problem in found.items() if problem}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of a server that does not run here."""
    names = problems().keys()
    left_out = [item for item in items if names & getattr(item, "fixturenames", ())]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were left out."""
    for name, problem in problems().items():
        terminalreporter.write_line(f"tests of {name} left out: it does not run here ({problem})")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail skipped tests in continuous integration, where nothing may be missing."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is required here, and was skipped: {report.longrepr}"
    return report
