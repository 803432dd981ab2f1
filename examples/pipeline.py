"""A start, into whatever OpenTelemetry pipeline this process is configured with.

Run it under opentelemetry-instrument, with OTEL_LOGS_EXPORTER=tbot or with an OTEL_CONFIG_FILE.
"""

import sys

from opentelemetry._logs import get_logger_provider

from tbot_otel import StartEvent, record_start


def main() -> None:
    """Record a start, and say what came of it."""
    event = StartEvent(run_mode="daemon", version="18.3.0", join_type="kubernetes")
    outcome = record_start(event, logger_provider=get_logger_provider()).flush(5.0)
    print(f"telemetry: {outcome.status.value}, {outcome.reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
