"""Settings of Hypothesis and of the fuzzers."""

import os

from hypothesis import HealthCheck, Phase, settings

LONG_PROFILE = os.environ.get("HYPOTHESIS_PROFILE") == "long"
"""Whether to try 25 times as many examples, for minutes instead of seconds."""


def examples(number: int, *, large: bool = False) -> settings:
    """Try this many examples; look for the smallest that fails, unless examples are large."""
    return settings(
        max_examples=number * (25 if LONG_PROFILE else 1),
        deadline=None,
        derandomize=False,  # in CI too
        print_blob=True,
        phases=[phase for phase in Phase if phase is not Phase.shrink or not large],
        suppress_health_check=[HealthCheck.too_slow],
    )
