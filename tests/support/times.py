"""Times of records."""

MINUTE_NS = 60 * 10**9


def assert_coarse(times: list[int], earliest: int, latest: int) -> None:
    """Check that 50 or more times are up to a minute before the exact ones, and not these.

    Args:
        times: The times.
        earliest: The first exact time.
        latest: The last exact time.
    """
    assert len(times) >= 50
    assert all(earliest - MINUTE_NS < time <= latest for time in times)
    # For even parts of a minute, the chance of all this near is 1 in 10 to the power of 15.
    assert min(times) < earliest - MINUTE_NS // 2
    assert len({*times}) == len(times)
