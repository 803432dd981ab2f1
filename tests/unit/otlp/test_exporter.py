"""LazyExporter: the official exporter belongs to the process that built it."""

import pytest
from opentelemetry.sdk._logs.export import LogRecordExportResult

from tbot_otel.otlp.exporter import LazyExporter
from tbot_otel.otlp.responses import ConsentWithdrawnError, ResponseObserver
from tbot_otel.otlp.settings import read_settings


class CalledExporter:
    """An exporter that records its calls."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def export(self, batch: object) -> LogRecordExportResult:
        """Accept the batch."""
        self.calls.append(batch)
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int) -> bool:
        """Fail."""
        self.calls.append(timeout_millis)
        return False

    def shutdown(self) -> None:
        """Do nothing."""
        self.calls.append("shutdown")


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("in_child", [False, True])
def test_forked_child(in_child: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child neither flushes nor shuts down the exporter of its parent."""
    exporter = CalledExporter()
    lazy = LazyExporter(read_settings)
    monkeypatch.setattr("tbot_otel.otlp.exporter.build_exporter", lambda *_: exporter)
    assert lazy.send([]).status.name == "UNOBSERVED"
    if in_child:
        monkeypatch.setattr(lazy, "_pid", 0)
    assert lazy.force_flush(7) is in_child
    lazy.shutdown()
    assert exporter.calls == [[], *([] if in_child else [7, "shutdown"])]
    assert lazy.send([]).status.name == "FAILED"


@pytest.mark.usefixtures("opted_in")
def test_child_builds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child builds an exporter of its own, and later sends with that."""
    built: list[CalledExporter] = []

    def build(*_: object) -> CalledExporter:
        built.append(CalledExporter())
        return built[-1]

    monkeypatch.setattr("tbot_otel.otlp.exporter.build_exporter", build)
    lazy = LazyExporter(read_settings)
    lazy.send([])
    monkeypatch.setattr(lazy, "_pid", 0)
    lazy.send([])
    lazy.send([])
    assert [exporter.calls for exporter in built] == [[[]], [[], []]]


@pytest.mark.usefixtures("opted_in")
def test_consent_before_each_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official exporter is built so that it asks for consent as it is then."""
    observers: list[ResponseObserver] = []

    def build(_: object, observer: ResponseObserver) -> CalledExporter:
        observers.append(observer)
        return CalledExporter()

    monkeypatch.setattr("tbot_otel.otlp.exporter.build_exporter", build)
    LazyExporter(read_settings).send([])
    (observer,) = observers
    observer.check_consent()
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    with pytest.raises(ConsentWithdrawnError):
        observer.check_consent()
