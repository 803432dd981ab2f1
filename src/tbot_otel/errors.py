"""The errors of this package.

TbotOtelError
├── InvalidEventError          an event was given a value that it cannot have
└── ExporterConfigurationError an OTLP exporter cannot be built from its arguments and variables

No message repeats a value. Each names the place and what was expected there.
"""


class TbotOtelError(Exception):
    """The base class of every error that this package raises on purpose."""


class InvalidEventError(TbotOtelError, ValueError):
    """An event was given a value that it cannot have.

    Args:
        attribute: The attribute's name, such as ``tbot.version``.
        expected: What the attribute accepts, in words.
    """

    def __init__(self, attribute: str, expected: str) -> None:
        super().__init__(f"{attribute}: expected {expected}")
        self.attribute: str = attribute
        self.expected: str = expected


class ExporterConfigurationError(TbotOtelError):
    """An OTLP exporter cannot be built from its arguments and variables."""


def missing_extra(name: str) -> str:
    """Return the problem that an extra of this package is not installed."""
    return f"needs the extra {name!r}: pip install 'tbot-otel[{name}]'"
