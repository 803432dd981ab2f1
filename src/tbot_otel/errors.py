"""The errors of this package.

TbotOtelError
├── InvalidEventError          an event was given a value that it cannot have
├── BotConfigError             a tbot.yaml cannot be read or counted
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


class BotConfigError(TbotOtelError):
    """A tbot.yaml cannot be read or counted.

    Args:
        place: The file, with the line if it is known: ``tbot.yaml:7``.
        problem: The key, and what was expected at it.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")


class ExporterConfigurationError(TbotOtelError):
    """An OTLP exporter cannot be built from its arguments and variables."""
