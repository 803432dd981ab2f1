"""Each change of a value, pattern or bound of the registry in turn is noticed.

mutmut changes functions alone, and the registry is data. The snapshot notices every change
(`test_snapshot_has_every_field`), but is written anew with each: here, it is what leaves.
"""

import re

import pytest

from support.cases import CASES, Case, Refusal
from support.registry_mutants import EQUIVALENT_MUTANTS, expected_values, mutate
from tbot_otel import registry
from tbot_otel.policy import Permitted, Refused, decide
from tbot_otel.registry import RESOURCE, START, Attribute

ATTRIBUTES = [*START.attributes, *RESOURCE]
each_attribute = pytest.mark.parametrize(
    "attribute", ATTRIBUTES, ids=lambda attribute: attribute.name
)
RESOURCE_VALUES = {
    "service.name": ["tbot"],
    "os.type": ["aix", "darwin", "freebsd", "linux", "netbsd", "openbsd", "solaris", "windows"],
    "host.arch": ["amd64", "arm32", "arm64", "ia64", "ppc32", "ppc64", "s390x", "x86"],
    "telemetry.sdk.language": ["python"],
    "telemetry.sdk.name": ["opentelemetry"],
}


def is_as_expected(case: Case) -> bool:
    """Whether policy decides on a case as the table says."""
    decision = decide(case.event_name, case.attributes)
    if isinstance(case.expected, Refusal):
        expected = (case.expected.reason, case.expected.attribute)
        return isinstance(decision, Refused) and expected == (decision.reason, decision.attribute)
    return (
        isinstance(decision, Permitted)
        and list(decision.attributes.items()) == list(case.expected.items())
        and decision.changes == case.changes
    )


def is_noticed(mutant: Attribute, expected: dict[str, str | None]) -> bool:
    """Whether a mutant admits another value than the table, or the plain rule, says."""
    name = mutant.name
    if name in RESOURCE_VALUES:
        return [*mutant.values] != RESOURCE_VALUES[name]
    try:
        if any(mutant.admit(text, (text,)) != value for text, value in expected.items()):
            return True
    except (re.error, IndexError):
        # The parts are not an expression together, or have another group.
        return True
    replaced = tuple(mutant if item.name == name else item for item in START.attributes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(START, "attributes", replaced)
        return not all(map(is_as_expected, CASES))


@each_attribute
def test_each_change_is_noticed(attribute: Attribute) -> None:
    """No mutant survives, except those that change nothing, each with its reason."""
    expected = expected_values(attribute.name)
    assert {text: attribute.admit(text, (text,)) for text in expected} == expected
    assert not is_noticed(attribute, expected)
    survivors = [name for name, mutant in mutate(attribute) if not is_noticed(mutant, expected)]
    assert survivors == [*EQUIVALENT_MUTANTS.get(attribute.name, {})]


@pytest.mark.parametrize("change", [-1, 1])
def test_bound_is_noticed(change: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a change of the largest count."""
    monkeypatch.setattr(registry, "MAX_COUNT", registry.MAX_COUNT + change)
    assert not all(map(is_as_expected, CASES))
