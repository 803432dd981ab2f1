"""`tbot-otel run`: the launcher, and the forwarder that it forks. This module imports nothing."""
