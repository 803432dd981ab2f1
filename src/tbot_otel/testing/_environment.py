"""The variables that set consent, the export, and the name of tbot's helper."""

import os

_PREFIXES = ("DO_NOT_TRACK", "OTEL_", "TELEPORT_", "_TBOT_")


def telemetry_variables() -> list[str]:
    """Return the names of those that are set."""
    return [name for name in os.environ if name.startswith(_PREFIXES)]
