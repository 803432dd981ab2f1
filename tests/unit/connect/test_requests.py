"""The responses to Connect requests without a socket, and the reports that are accepted."""

import gzip
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protobuf import Oneof
from protobuf.wkt import Timestamp

from support.cases import EMPTY_ATTRIBUTES, FULL_ATTRIBUTES, OTHER
from support.core import call_application
from support.fuzzing import examples
from support.messages import (
    GZIP_HEADER,
    INT32_MAX,
    JSON,
    MARKER,
    NOW,
    NOW_SECONDS,
    PROTO,
    REPORT_ATTRIBUTES,
    SESSION_ID,
    encode_json_request,
    encode_request,
    encode_start,
    field,
    varint,
)
from support.properties import check_reply, check_timestamp
from support.request_cases import (
    ACCEPTED_CASES,
    BAD_ID,
    NO_COUNT,
    NOT_THE_CALL_CASES,
    REFUSED_CASES,
    REFUSED_HEADER_CASES,
)
from support.strategies import DOCUMENTS, MESSAGES
from support.times import assert_coarse
from tbot_otel.connect import Request, another_start_error, parse_report, unavailable_error
from tbot_otel.connect.tbot_pb import TbotStartEvent
from tbot_otel.policy import Permitted, decide
from tbot_otel.registry import START


@pytest.mark.parametrize(("body", "content_type", "headers"), ACCEPTED_CASES)
def test_accepted(body: bytes, content_type: str, headers: dict[str, str]) -> None:
    """Every valid encoding of a start gives the same report, with the time of receipt."""
    status, _, _, (report,) = call_application(body, content_type, **headers)
    assert status == 200
    assert report.session_id == SESSION_ID
    check_timestamp(report)
    assert list(report.permitted.attributes.items()) == list(REPORT_ATTRIBUTES.items())


def test_errors() -> None:
    """An undelivered report can be sent again, and one more start cannot be."""
    errors = [
        (error.code.value, error.message)
        for error in (unavailable_error("why"), another_start_error())
    ]
    assert errors == [
        ("unavailable", "why"),
        ("resource_exhausted", "another start was reported before"),
    ]


OTHER_HELPER: dict[str, str | int] = {"tbot.helper": OTHER}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", EMPTY_ATTRIBUTES),
        *((field(1, number), EMPTY_ATTRIBUTES) for number in (0, 3, 99, -1, INT32_MAX, 2**31)),
        ({"runMode": "RUN_MODE_ONE_SHOT"}, EMPTY_ATTRIBUTES | {"tbot.run_mode": "one-shot"}),
        *(
            ({"runMode": mode}, EMPTY_ATTRIBUTES)
            for mode in (0, 3, 99, -1, None, f"RUN_MODE_{MARKER}", "RUN_MODE_UNSPECIFIED")
        ),
        # proto3 truncates a larger number to 32 bits.
        (field(6, 2**32 + 5), EMPTY_ATTRIBUTES | {"tbot.destinations_other": 5}),
        ({"destinationsOther": INT32_MAX}, EMPTY_ATTRIBUTES | {"tbot.destinations_other": 999}),
        ({"destinationsOther": "9e2"}, EMPTY_ATTRIBUTES | {"tbot.destinations_other": 900}),
        ({"destinationsOther": None}, EMPTY_ATTRIBUTES),
        ({"version": f"18.3.0-dev.{MARKER}"}, EMPTY_ATTRIBUTES | {"tbot.version": "18.3.0-dev"}),
        *(
            ({"helper": helper, "helperVersion": "1.2.0"}, EMPTY_ATTRIBUTES | OTHER_HELPER)
            for helper in (f"{MARKER}.example.com", MARKER)
        ),
        ({"joinType": MARKER}, EMPTY_ATTRIBUTES | {"tbot.join_type": OTHER}),
        ({"version": MARKER, "helperVersion": "v1.2.0"}, EMPTY_ATTRIBUTES),
        # A field with another wire type is an unknown field.
        (field(2, 5) + field(6, MARKER) + varint(7 << 3 | 5) + bytes(4), EMPTY_ATTRIBUTES),
    ],
)
def test_start(sent: bytes | object, expected: dict[str, str | int]) -> None:
    """Absent fields get defaults, unknown values become _OTHER, and the marker never leaves."""
    reply = (
        call_application(encode_request(sent))
        if isinstance(sent, bytes)
        else call_application(encode_json_request(sent), JSON)
    )
    assert [report.permitted.attributes for report in reply.reports] == [expected]


@pytest.mark.parametrize("bracket", ["[", "{"])
def test_brackets_in_json(bracket: str) -> None:
    """A JSON request with more than 100 brackets is refused unread: the parser could crash."""
    # The request and its start have one each.
    most = call_application(encode_json_request({"joinType": bracket * 98}), JSON)
    assert [report.permitted.attributes["tbot.join_type"] for report in most.reports] == [OTHER]
    more = call_application(encode_json_request({"joinType": bracket * 99}), JSON)
    assert more == (400, "invalid_argument", "the body: expected a SubmitTbotEventRequest", [])


def test_policy() -> None:
    """The policy decides on the attributes, and the response names a refused field."""
    sent = FULL_ATTRIBUTES | {"tbot.helper": MARKER, "tbot.destinations_other": 1000}
    (report,) = call_application(encode_request(encode_start(sent))).reports
    decision = decide(START.name, sent)
    assert isinstance(decision, Permitted)
    assert list(report.permitted.attributes.items()) == list(decision.attributes.items())
    assert report.permitted.changes == decision.changes
    reply = call_application(encode_request(encode_start(sent | {"tbot.destinations_other": -1})))
    assert reply == (*NO_COUNT, [])


def test_allowed_helper() -> None:
    """The owner of the receiver can allow the name of another helper."""
    given = FULL_ATTRIBUTES | {"tbot.helper": "acme-runner"}
    request = Request.from_binary(encode_request(encode_start(given)))
    allowed = parse_report(request, NOW, ["acme-runner"]).permitted
    assert allowed.attributes["tbot.helper"] == "acme-runner"
    assert parse_report(request, NOW).permitted.attributes["tbot.helper"] == OTHER


@pytest.mark.parametrize(("body", "content_type", "headers", "expected"), REFUSED_CASES)
def test_refused(
    body: bytes, content_type: str, headers: dict[str, str], expected: tuple[int, str, str]
) -> None:
    """An invalid body is refused with Connect's error, which names the field at fault."""
    assert call_application(body, content_type, **headers) == (*expected, [])


@pytest.mark.parametrize(("body", "headers", "status", "code"), REFUSED_HEADER_CASES)
def test_refused_header(body: bytes, headers: dict[str, str], status: int, code: str) -> None:
    """An invalid or unsupported Connect header is refused with Connect's error."""
    reply = call_application(body, **headers)
    assert (reply.status, reply.code, reply.reports) == (status, code, [])


@pytest.mark.parametrize(("more", "status"), NOT_THE_CALL_CASES)
@pytest.mark.parametrize("framed", [False, True])
def test_not_the_call(more: dict[str, str], status: int, *, framed: bool) -> None:
    """A request that is not the call gets only an HTTP status, with any body."""
    body = encode_request(encode_start(FULL_ATTRIBUTES))
    # Streaming protocols put the length first.
    frame = b"\0" + len(body).to_bytes(4) if framed else b""
    assert call_application(frame + body, **more) == (status, "", "", [])


@pytest.mark.parametrize(
    "session_id",
    [
        *(
            "",
            MARKER,
            SESSION_ID[:-1],
            f"{SESSION_ID}0",
            f"{SESSION_ID}\n",
            f" {SESSION_ID}",
            f"{{{SESSION_ID}}}",
            f"urn:uuid:{SESSION_ID}",
        ),
        *(
            SESSION_ID.replace("-", ""),
            SESSION_ID.replace("-", "_"),
            f"{SESSION_ID}\0",
            f"{SESSION_ID}\r\n",
            SESSION_ID.replace("0", "g"),
        ),
        # The versions 1, 2, 3, 5, 6, 7 and 8; other variants; nil and max.
        *(f"0b7f1f2e-5d0c-{version}c39-8a54-3f1d9e6b7a20" for version in "1235678"),
        *(f"0b7f1f2e-5d0c-4c39-{variant}a54-3f1d9e6b7a20" for variant in "07cf"),
        *(str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))),
        # Digits and letters only by Unicode.
        SESSION_ID.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
        SESSION_ID.replace("b", "\N{FULLWIDTH LATIN SMALL LETTER B}"),
        SESSION_ID.replace("b", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"),
    ],
)
def test_invalid_session_id(session_id: str) -> None:
    """An id that is not a version 4 UUID is refused: it could link one start to the next."""
    assert call_application(encode_request(session_id=session_id)) == (*BAD_ID, [])
    assert call_application(encode_json_request({}, session_id=session_id), JSON) == (*BAD_ID, [])


@pytest.mark.parametrize(
    ("session_id", "expected"),
    [
        (SESSION_ID, SESSION_ID),
        (SESSION_ID.upper(), SESSION_ID),
        ("ffffffff-ffff-4fff-bfff-ffffffffffff",) * 2,
    ],
)
def test_session_id(session_id: str, expected: str) -> None:
    """A version 4 UUID is accepted, and leaves in lower case."""
    reply = call_application(encode_request(session_id=session_id))
    assert [report.session_id for report in reply.reports] == [expected]


TIMES = [
    *((seconds, nanos) for seconds in (NOW_SECONDS, NOW_SECONDS - 1) for nanos in (0, -1, 10**9)),
    *((seconds, 5) for seconds in (NOW_SECONDS - 300, NOW_SECONDS + 300, 0, -1, 2**33)),
    *((seconds, 0) for seconds in (-62_135_596_800, 253_402_300_799)),
    *((seconds, nanos) for seconds in (2**63 - 1, -(2**63)) for nanos in (-(2**31), 1)),
]


@pytest.mark.parametrize(("seconds", "nanos"), TIMES)
def test_timestamp(seconds: int, nanos: int) -> None:
    """Tbot's own time is accepted and ignored, whatever it is."""
    body = encode_request(more=field(2, field(1, seconds) + field(2, nanos)))
    (report,) = call_application(body).reports
    check_timestamp(report)
    direct = Request(
        distinct_id=SESSION_ID,
        timestamp=Timestamp(seconds=seconds, nanos=nanos),
        event=Oneof("start", TbotStartEvent()),
    )
    check_timestamp(parse_report(direct, NOW))


def test_time_is_coarse() -> None:
    """A report has not the exact time of receipt."""
    request = Request.from_binary(encode_request())
    assert_coarse([parse_report(request, NOW).timestamp for _ in range(50)], NOW, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "2026-09-21T14:13:20.000000007Z",
        "2026-09-21T16:13:20.5+02:00",
        *("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", None),
    ],
)
def test_timestamp_in_json(text: str | None) -> None:
    """The same holds for a timestamp in JSON."""
    (report,) = call_application(encode_json_request({}, timestamp=text), JSON).reports
    check_timestamp(report)


BODIES = st.tuples(MESSAGES, st.just(PROTO)) | st.tuples(DOCUMENTS, st.just(JSON))


@examples(120)
@given(
    st.binary() | MESSAGES | DOCUMENTS,
    st.sampled_from([PROTO, JSON, "application/grpc-web", "application/connect+proto", ""]),
    st.sampled_from(["", "gzip", "identity", "br"]),
)
def test_any_bytes(body: bytes, content_type: str, encoding: str) -> None:
    """Any bytes of any content type get a response, and only permitted values leave."""
    check_reply(call_application(body, content_type, HTTP_CONTENT_ENCODING=encoding))


@examples(120)
@given(BODIES, st.integers(0, 80))
def test_any_message(typed_body: tuple[bytes, str], cut: int) -> None:
    """Any message, whole, compressed or cut off, gets one too, and only permitted values leave."""
    body, content_type = typed_body
    check_reply(call_application(body, content_type))
    check_reply(call_application(gzip.compress(body), content_type, **GZIP_HEADER))
    check_reply(call_application(body[: -cut or None], content_type))
