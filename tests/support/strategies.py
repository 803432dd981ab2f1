"""Hypothesis strategies for request bodies."""

from hypothesis import strategies as st

from support.cases import FULL_ATTRIBUTES
from support.messages import (
    CAMEL_CASE_START,
    SNAKE_CASE_START,
    encode_json_request,
    encode_request,
    field,
)

SESSION_IDS = st.uuids(version=4).map(str) | st.uuids().map(str) | st.text()
TEXTS = st.text() | st.sampled_from([str(value) for value in FULL_ATTRIBUTES.values()])
INTEGERS = st.integers(-(2**64), 2**64) | st.integers(0, 9)
TIMES = st.builds(lambda *v: field(2, field(1, v[0]) + field(2, v[1])), INTEGERS, INTEGERS)
STARTS = st.lists(st.builds(field, st.integers(1, 12), TEXTS | INTEGERS | st.binary()))
MESSAGES = st.builds(
    lambda session_id, event, more: encode_request(event, session_id=session_id, more=more),
    SESSION_IDS,
    STARTS.map(b"".join) | st.none(),
    TIMES | st.just(b""),
)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS, st.lists, max_leaves=4
)
DOCUMENTS = st.builds(
    lambda session_id, event, more: encode_json_request(event, session_id=session_id, **more),
    SESSION_IDS,
    st.dictionaries(st.sampled_from([*CAMEL_CASE_START, *SNAKE_CASE_START, "x"]), VALUES) | VALUES,
    st.dictionaries(st.sampled_from(["timestamp", "x"]), VALUES),
)
