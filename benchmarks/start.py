"""Records one start, with this package."""

from tbot_otel import StartEvent, record_start

record_start(StartEvent(run_mode="daemon", version="18.3.0", join_type="github"))
