"""An OpenTelemetry exporter plugin for the anonymous, opt-in telemetry of tbot.

Public names are loaded on first use: importing this package imports nothing else.
"""

__version__ = "0.1.0"

_LAZY_EXPORTS = {
    "Consent": "consent",
    "OptInSampler": "consent",
    "InvalidEventError": "errors",
    "TbotOtelError": "errors",
    "StartEvent": "events",
    "Reason": "policy",
    "TbotLogExporter": "pipeline.exporter",
    "OptInLogRecordProcessor": "pipeline.processor",
    "TbotResourceDetector": "pipeline.resource",
    "Outcome": "session",
    "Session": "session",
    "Status": "session",
    "record_start": "start",
}

__all__ = [
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.consent import Consent, OptInSampler
    from tbot_otel.errors import InvalidEventError, TbotOtelError
    from tbot_otel.events import StartEvent
    from tbot_otel.pipeline.exporter import TbotLogExporter
    from tbot_otel.pipeline.processor import OptInLogRecordProcessor
    from tbot_otel.pipeline.resource import TbotResourceDetector
    from tbot_otel.policy import Reason
    from tbot_otel.session import Outcome, Session, Status
    from tbot_otel.start import record_start


def __getattr__(name: str) -> object:
    if name not in _LAZY_EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LAZY_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
