"""The gate of a pipeline: a record passes with consent, and as policy permits it."""

import logging
from collections import Counter
from collections.abc import Iterable

from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord

from tbot_otel.consent import Consent
from tbot_otel.pipeline.record import PermittedRecord, anonymize, start_of
from tbot_otel.policy import EXPECTED_HELPER, Refused, is_allowable_helper
from tbot_otel.session import Outcome, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.policy import Reason

_logger = logging.getLogger("tbot_otel")


class Gate:
    """Lets records pass, and settles the starts of those that it holds back.

    Args:
        allowed_helpers: A list of helpers' names: see `policy.decide`. A name that cannot be
            allowed is logged and ignored.

    Attributes:
        changes: How often a value or a record did not leave as it came, by reason.
    """

    def __init__(self, allowed_helpers: object) -> None:
        self.changes: Counter[Reason] = Counter()
        names: list[object] = [None]
        if isinstance(allowed_helpers, Iterable) and not isinstance(allowed_helpers, str):
            names = list(allowed_helpers)
        self._allowed_helpers = [str(name) for name in names if is_allowable_helper(name)]
        if len(self._allowed_helpers) < len(names):
            _logger.warning("allowed_helpers: %s; others are ignored", EXPECTED_HELPER)

    def copy(
        self, record: ReadableLogRecord | ReadWriteLogRecord, consent: Consent
    ) -> PermittedRecord | None:
        """Return what may leave of a record, as a new one; None if nothing may."""
        if not consent:
            settle(record, Outcome(Status.REFUSED, consent.reason))
            return None
        copy, decision = anonymize(record, self._allowed_helpers)
        if isinstance(decision, Refused):
            self.changes[decision.reason] += 1
            settle(record, Outcome(Status.REFUSED, decision.reason.value))
        else:
            self.changes.update(reason for _, reason in decision.changes)
        return copy


def settle(record: ReadableLogRecord | ReadWriteLogRecord, outcome: Outcome) -> None:
    """Set the outcome of a record's start, if this process created that."""
    if start := start_of(record):
        start.settle(outcome)
