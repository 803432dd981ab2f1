"""The errors of this package.

TbotOtelError
├── InvalidEventError          an event was given a value that it cannot have
├── BotConfigError             a tbot.yaml that cannot be counted
└── ExporterConfigurationError an OTLP exporter that cannot be built as asked

No message repeats a value: it names the place and what was expected there.
"""


class TbotOtelError(Exception):
    """The base of every error that this package raises on purpose."""


class InvalidEventError(TbotOtelError, ValueError):
    """An event was given a value that it cannot have.

    Args:
        attribute: The attribute's name, such as ``tbot.version``.
        expected: What it would have taken.
    """

    def __init__(self, attribute: str, expected: str) -> None:
        super().__init__(f"{attribute}: expected {expected}")
        self.attribute = attribute
        self.expected = expected


class BotConfigError(TbotOtelError):
    """A tbot.yaml that cannot be counted.

    Args:
        place: The file, with the line where there is one: ``tbot.yaml:7``.
        problem: The key and what was expected at it.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")


class ExporterConfigurationError(TbotOtelError):
    """An OTLP exporter that cannot be built as the arguments and variables ask."""
