"""Records a start into the OpenTelemetry pipeline that this process is configured with.

Run it with opentelemetry-instrument, and OTEL_LOGS_EXPORTER=tbot or an OTEL_CONFIG_FILE.
"""

import sys

from opentelemetry._logs import get_logger_provider

from tbot_otel import StartEvent, record_start


def main() -> None:
    """Record a start, and print the outcome."""
    event = StartEvent(run_mode="daemon", version="18.3.0", join_type="kubernetes")
    outcome = record_start(event, logger_provider=get_logger_provider()).flush(10.0)
    print(f"telemetry: {outcome.status.value}, {outcome.reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
