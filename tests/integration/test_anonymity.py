"""Anonymity: secrets are put in every place, and searched for in everything that was sent.

``HYPOTHESIS_PROFILE=long`` tries 25 times as many examples.
"""

import base64
import contextlib
import io
import itertools
import json
import logging
import re
import shlex
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jsonschema  # type: ignore[import-untyped]
import pytest
import requests
import yaml
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry._logs import LogRecord
from opentelemetry.context import Context, attach, detach
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from support.fuzzing import examples
from support.otlp import PROTOCOLS
from support.processes import WAIT_SECONDS, free_port, run_python
from support.standins import ReceivedRequest, Response, accepting_standin
from tbot_otel import (
    InvalidEventError,
    StartEvent,
    Status,
    TbotLogExporter,
    __version__,
    record_start,
)
from tbot_otel.cli import main
from tbot_otel.registry import OTHER, RESOURCE, SCHEMA_URL, START


class RecordingServer:
    """A Collector on loopback that keeps each request, and over HTTP sets a cookie.

    Args:
        protocol: The protocol.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.standin = accepting_standin(protocol, Response(headers={"Set-Cookie": "id=1; Path=/"}))
        self.port = self.standin.port

    def take_received(self) -> list[ReceivedRequest]:
        """Return the requests since the last call."""
        received = [*self.standin.requests]
        self.standin.requests.clear()
        return received

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a process that has opted in and sends to this server."""
        return {
            "TELEPORT_ANONYMOUS_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.standin.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
        }


@pytest.fixture(scope="module", params=PROTOCOLS)
def server(request: pytest.FixtureRequest) -> Iterator[RecordingServer]:
    """A server for each protocol."""
    server = RecordingServer(request.param)
    with server.standin:
        yield server


@pytest.fixture(scope="module")
def http_server() -> Iterator[RecordingServer]:
    """A server for the default protocol."""
    server = RecordingServer("http/protobuf")
    with server.standin:
        yield server


@contextlib.contextmanager
def captured_output(environ: Mapping[str, str]) -> Iterator[io.StringIO]:
    """Set variables, and capture standard output, standard error and this package's log."""
    output = io.StringIO()
    logger = logging.getLogger("tbot_otel")
    handler = logging.StreamHandler(output)
    logger.addHandler(handler)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        for name, value in environ.items():
            patch.setenv(name, value)
        try:
            yield output
        finally:
            logger.removeHandler(handler)


# What a record may contain.


@cache
def schema() -> jsonschema.Draft202012Validator:
    """The schema that ``tbot-otel events --json`` prints."""
    with captured_output({}) as output:
        assert main(["events", "--json"]) == 0
    return jsonschema.Draft202012Validator(json.loads(output.getvalue()))


ALLOWED_HEADERS = {
    *("accept", "accept-encoding", "connection", "content-length", "content-type", "host"),
    "user-agent",
}


class ParsedRequest(NamedTuple):
    """The content of a request."""

    session: str
    attributes: dict[str, str | int]
    request: ExportLogsServiceRequest


def parse_request(received: ReceivedRequest) -> ParsedRequest:
    """Check that a request is one record of the registry and nothing else, and parse it."""
    names = {name.decode().lower() for name in re.findall(rb"(?m)^([^:\r\n]+): ", received.head)}
    assert names <= ALLOWED_HEADERS
    request = ExportLogsServiceRequest()
    request.ParseFromString(received.body)
    (logs,) = request.resource_logs
    (scope_logs,) = logs.scope_logs
    (record,) = scope_logs.log_records
    resource, attributes = (
        typed_attributes(logs.resource.attributes),
        typed_attributes(record.attributes),
    )
    # A request rebuilt from these fields alone has the same bytes: there are no other fields.
    rebuilt = ExportLogsServiceRequest()
    logs_rebuilt = rebuilt.resource_logs.add()
    logs_rebuilt.resource.attributes.extend(logs.resource.attributes)
    scope_rebuilt = logs_rebuilt.scope_logs.add()
    logs_rebuilt.schema_url = scope_rebuilt.schema_url = SCHEMA_URL
    scope_rebuilt.scope.name, scope_rebuilt.scope.version = "tbot_otel", __version__
    scope_rebuilt.log_records.add(
        time_unix_nano=record.time_unix_nano,
        observed_time_unix_nano=record.time_unix_nano,
        severity_number=9,
        severity_text="INFO",
        event_name="tbot.start",
        body=AnyValue() if record.HasField("body") else None,  # the newest SDK writes an empty body
        attributes=record.attributes,
    )
    assert request == rebuilt
    assert received.body == rebuilt.SerializeToString()
    schema().validate(
        {"event_name": record.event_name, "attributes": attributes, "resource": resource}
    )
    assert resource.keys() == {item.name for item in RESOURCE}
    optional = {item.name for item in START.attributes if item.optional}
    assert attributes.keys() | optional == {item.name for item in START.attributes}
    session = uuid.UUID(str(resource["session.id"]))
    assert (session.version, session.variant) == (4, uuid.RFC_4122)
    return ParsedRequest(str(session), attributes, request)


def typed_attributes(attributes: Any) -> dict[str, str | int]:
    """Return attributes as a dict, and check that keys are unique and values are text or ints."""
    assert len({attribute.key for attribute in attributes}) == len(attributes)
    kinds = {attribute.value.WhichOneof("value") for attribute in attributes}
    assert kinds <= {"string_value", "int_value"}
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value"))
        for attribute in attributes
    }


# Values that identify.


def matching(pattern: str) -> st.SearchStrategy[str]:
    """Texts that match a whole pattern."""
    return st.from_regex(pattern, fullmatch=True)


MAC_ADDRESSES = st.binary(min_size=6, max_size=6)
# Policy has to refuse each of these forms in every field.
IDENTITIES = st.one_of(
    matching("[a-z]{3,9}(-[a-z0-9]{1,5})?([.][a-z]{2,9}){2}"),
    matching("ip(-[1-9][0-9]{0,2}){4}"),
    st.ip_addresses(v=4).filter(lambda address: not address.is_loopback).map(str),
    st.ip_addresses(v=6).map(str),
    MAC_ADDRESSES.map(lambda mac: mac.hex(":")),
    MAC_ADDRESSES.map(lambda mac: mac.hex("-").upper()),
    st.emails(),
    st.uuids(version=1).map(str),
    st.uuids(version=4).map(str),
    st.uuids(version=4).map(lambda uuid4: uuid4.hex),
    matching("[1-9][0-9]{11}"),
    matching("arn:aws:iam::[0-9]{12}:role/[a-z]{4,9}"),
    matching("projects/[0-9]{12}/[a-z]{4,9}"),
    matching("/(home|srv)/[a-z]{4,9}/[a-z0-9_.]{4,9}"),
    matching("[0-9a-f]{32}"),
    st.binary(min_size=20, max_size=20).map(lambda key: base64.b64encode(key).decode()),
)
PEOPLE = ("alice", "bogdan", "carmen", "dmitri", "yuki-tanaka", "john_smith", "o-brien")
COMPANIES = ("acme-corp", "globex", "initech", "umbrella-inc", "hooli-gmbh")
# Values that identify by what they mean. No pattern can tell most of them from harmless words.
MEANINGS = st.one_of(
    st.builds("{}-{}".format, st.sampled_from(PEOPLE), st.sampled_from(("laptop", "macbook"))),
    st.builds("{}/{}".format, st.sampled_from(COMPANIES), st.sampled_from(PEOPLE)),
    st.builds("{}-prod-{}".format, st.sampled_from(("web", "db")), st.sampled_from(COMPANIES)),
    matching("(web|db|node|build|kube)-?(prod|stage|primary|worker)-?[a-z]?[0-9]{1,3}"),
    # Telephone numbers and street addresses.
    matching("[2-9][0-9]{2}555[0-9]{4}"),
    matching("[+]1-[2-9][0-9]{2}-555-[0-9]{4}"),
    matching("[1-9][0-9]{1,2}[A-D]? (Baker|Main|Kramgasse) (Street|Road)"),
    # An address in the form of a version.
    matching("(1[0-9]{2}|2[0-4][0-9])([.][0-9]{1,3}){2}-rc[.][0-9]{1,3}"),
    # Names of cloud resources.
    matching("arn-aws-iam-role-[a-z]{4,9}"),
    matching("(s3|gs)-(acme|globex)-[a-z]{4,9}-logs"),
    matching("(acme|globex)-(staging|prod)-vpc-[a-z]{8}"),
    # Ids in base32 and hexadecimal, and keys.
    matching("[A-Z2-7]{16,32}"),
    matching("[a-z2-7]{10,26}"),
    matching("[a-f]{8,11}"),
    matching("(sk|pk)-(live|test)_[A-Za-z]{12,24}"),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=30)
# Everything that may leave is ASCII, so no such text can match by chance.
SECRETS = IDENTITIES | MEANINGS | TEXTS.filter(lambda text: not text.isascii())
VALUES: st.SearchStrategy[Any] = st.recursive(
    SECRETS | SECRETS.map(str.encode) | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(SECRETS, inner, max_size=2),
    max_leaves=4,
)


INVALID_COUNTS = (
    st.booleans()
    | st.floats(0, 9)
    | st.integers(max_value=-1)
    | VALUES.filter(lambda value: value is not None and type(value) is not int)
)


def long_texts(value: object) -> Iterator[str | bytes]:
    """All texts in a value, including keys, that are too long to match by chance."""
    if isinstance(value, str | bytes):
        if len(value) >= 8:
            yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from long_texts(pair)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from long_texts(item)


def encodings(secret: str | bytes) -> Iterator[bytes]:
    """The forms in which a secret could be sent or printed."""
    if isinstance(secret, bytes):
        secret = secret.decode()
    yield from (secret.encode(), quote(secret).encode(), json.dumps(secret)[1:-1].encode())
    yield base64.b64encode(secret.encode()).rstrip(b"=")
    digits = re.sub("[:-]", "", secret)
    packed = []
    if re.fullmatch("([0-9A-Fa-f]{2}){6,}", digits):
        yield digits.encode()
        packed.append(bytes.fromhex(digits))
    with contextlib.suppress(ValueError):
        packed.append(IPv6Address(secret).packed)
    # Hypothesis also tries the constants of our modules. Those in a record are ASCII.
    yield from (form for form in packed if not form.isascii())


def assert_absent(secrets: object, *texts: bytes | str) -> None:
    """Check that no text contains a secret."""
    found = [
        (text.encode(errors="surrogateescape") if isinstance(text, str) else text).lower()
        for text in texts
    ]
    for secret in long_texts(secrets):
        for encoding in encodings(secret):
            assert all(encoding.lower() not in text for text in found)


def assert_one_record_sent(server: RecordingServer, secrets: object) -> ParsedRequest:
    """Check that one record and none of the secrets was received, and return it."""
    (received,) = server.take_received()
    assert_absent(secrets, received.head, received.body)
    return parse_request(received)


# Where the values come from.


class Secrets(NamedTuple):
    """The secrets of one process, by their place."""

    environ: str
    service: str
    session: str
    helper: str
    helper_version: str
    resource: dict[str, str]
    schema: str
    scope: str
    scope_version: str
    scope_attributes: dict[str, str]
    trace: str
    span: str
    tracestate: str
    baggage: str
    attributes: dict[str, Any]
    body: Any
    severity: str
    exception: str


ATTRIBUTES = st.dictionaries(SECRETS, SECRETS, max_size=3)
SECRET_SETS = st.builds(
    Secrets,
    helper=IDENTITIES | MEANINGS,
    resource=ATTRIBUTES,
    scope_attributes=ATTRIBUTES,
    trace=matching("[1-9a-f][0-9a-f]{31}"),
    span=matching("[1-9a-f][0-9a-f]{15}"),
    attributes=st.dictionaries(SECRETS, VALUES, max_size=3),
    body=VALUES,
    session=st.uuids(version=4).map(str),
    **dict.fromkeys(("environ", "service", "helper_version", "schema"), SECRETS),
    **dict.fromkeys(("scope", "scope_version", "tracestate", "baggage"), SECRETS),
    **dict.fromkeys(("severity", "exception"), SECRETS),
)
# Values that must not leave, in a record's own attributes.
INVALID_ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "tbot.run_mode": SECRETS | VALUES,
        "tbot.version": SECRETS | VALUES,
        "tbot.join_type": SECRETS | VALUES,
        "tbot.helper": SECRETS | MEANINGS.map("gha:{}".format),
        "tbot.helper_version": SECRETS | VALUES,
    },
)
COUNT_NAMES = [item.name for item in START.attributes if item.type == "int"]


def environ_with(secrets: Secrets) -> dict[str, str]:
    """Variables that contain secrets."""
    attributes = {"host.name": secrets.environ, "session.id": secrets.session}
    return {
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{k}={quote(v)}" for k, v in attributes.items()),
        "OTEL_SERVICE_NAME": secrets.service,
        "_TBOT_TELEMETRY_HELPER": secrets.helper,
        "_TBOT_TELEMETRY_HELPER_VERSION": secrets.helper_version,
        "HOSTNAME": secrets.environ,
        "TRACEPARENT": f"00-{secrets.trace}-{secrets.span}-01",
    }


@contextlib.contextmanager
def active_span(trace: str, span: str, state: str, item: str) -> Iterator[Context]:
    """Run a block with an active span and baggage."""
    flags, tracestate = TraceFlags(TraceFlags.SAMPLED), TraceState([("vendor", state)])
    parent = SpanContext(int(trace, 16), int(span, 16), False, flags, tracestate)
    active = set_span_in_context(NonRecordingSpan(parent))
    token = attach(baggage.set_baggage("item", item, active))
    try:
        yield active
    finally:
        detach(token)


class SynchronousProcessor(SimpleLogRecordProcessor):
    """A processor that exports within the caller's span and baggage."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Export a record."""
        resource, scope = log_record.resource, log_record.instrumentation_scope
        assert resource is not None
        self._exporter.export([ReadableLogRecord(log_record.log_record, resource, scope)])


@contextlib.contextmanager
def pipeline_with_secrets(
    exporter: TbotLogExporter,
    secrets: Secrets,
    environ: dict[str, str],
    processor: type[SimpleLogRecordProcessor] = SimpleLogRecordProcessor,
) -> Iterator[tuple[LoggerProvider, Context, io.StringIO]]:
    """Run a block with secrets in the provider, the active span, the baggage and the variables."""
    with (
        captured_output(environ | environ_with(secrets)) as output,
        active_span(secrets.trace, secrets.span, secrets.tracestate, secrets.baggage) as active,
    ):
        attributes = {"host.name": secrets.environ, "session.id": secrets.session}
        resource = Resource.create(attributes | secrets.resource, secrets.schema)
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(processor(exporter))
        yield provider, active, output
    assert_absent(secrets, output.getvalue())


@pytest.fixture(scope="module")
def exporter(server: RecordingServer) -> Iterator[TbotLogExporter]:
    """A TbotLogExporter for the server."""
    suffix = "" if server.protocol == "grpc" else "/v1/logs"
    endpoint = f"http://127.0.0.1:{server.port}{suffix}"
    exporter = TbotLogExporter(protocol=server.protocol, endpoint=endpoint)
    yield exporter
    exporter.shutdown()


@pytest.fixture(scope="module")
def instrumented_requests() -> Iterator[None]:
    """Add the active span and the baggage to HTTP requests."""
    RequestsInstrumentor().instrument()
    yield
    RequestsInstrumentor().uninstrument()


@pytest.mark.usefixtures("instrumented_requests")
@examples(24, large=True)
@given(
    secrets=SECRET_SETS,
    invalid=INVALID_ATTRIBUTES,
    counts=st.fixed_dictionaries(dict.fromkeys(COUNT_NAMES, st.integers(0, 2**31 - 1))),
    processor=st.sampled_from([SimpleLogRecordProcessor, SynchronousProcessor]),
)
def test_pipeline(
    *,
    server: RecordingServer,
    exporter: TbotLogExporter,
    secrets: Secrets,
    invalid: dict[str, Any],
    counts: dict[str, int],
    processor: type[SimpleLogRecordProcessor],
) -> None:
    """Only the registry's attributes leave from a start that any code emits."""
    with pipeline_with_secrets(exporter, secrets, server.environ, processor) as (
        provider,
        active,
        output,
    ):
        record = LogRecord(
            context=active,
            body=secrets.body,
            severity_text=secrets.severity,
            attributes={"tbot.join_type": "iam", **counts, **invalid, **secrets.attributes},
            event_name="tbot.start",
        )
        record.exception = ValueError(secrets.exception)
        scope = secrets.scope, secrets.scope_version, secrets.schema, secrets.scope_attributes
        provider.get_logger(*scope).emit(record)
        sent = assert_one_record_sent(server, [secrets, *invalid.values()])
    assert_absent([*invalid.values()], output.getvalue())
    assert sent.attributes == {
        "tbot.run_mode": OTHER,
        "tbot.version": OTHER,
        "tbot.join_type": OTHER if "tbot.join_type" in invalid else "iam",
        **({"tbot.helper": OTHER} if "tbot.helper" in invalid else {}),
        **{name: min(count, 999) for name, count in counts.items()},
    }


@pytest.mark.usefixtures("instrumented_requests")
@examples(16, large=True)
@given(
    secrets=SECRET_SETS,
    version=st.sampled_from(["18.3.0+{}", "18.3.0-{}", "18.3.0-dev.{}", "18.3.0-dev.{}.1+x"]),
    tail=IDENTITIES | MEANINGS,
    private=st.booleans(),
)
def test_record_start(
    *,
    server: RecordingServer,
    exporter: TbotLogExporter,
    secrets: Secrets,
    version: str,
    tail: str,
    private: bool,
) -> None:
    """Only the registry's attributes leave from `record_start`, in either pipeline."""
    with pipeline_with_secrets(exporter, secrets, server.environ) as (provider, _, output):
        event = StartEvent(run_mode="daemon", version=version.format(tail))
        session = record_start(event, logger_provider=None if private else provider)
        assert session.flush(10).status is Status.DELIVERED
        sent = assert_one_record_sent(server, [secrets, tail])
    assert_absent(tail, output.getvalue(), repr(event))
    assert sent.session == session.id
    number = str(sent.attributes.pop("tbot.version"))
    assert re.fullmatch(r"18\.3\.0(-(alpha|beta|rc|dev)(\.[0-9]{1,2})?)?", number)
    assert sent.attributes == {
        "tbot.run_mode": "daemon",
        "tbot.join_type": "",
        **dict.fromkeys(COUNT_NAMES, 0),
    }


V2_TYPES = {
    "application": "application",
    "database": "database",
    "kubernetes": "kubernetes",
    "kubernetes/v2": "other",
    "identity": "other",
    "ssh_host": "other",
    "workload-identity-x509": "other",
    "": "other",  # a secret as the type
}
V1_FIELDS = {"application": "app", "kubernetes": "kubernetes_cluster"}
METHODS = ("", "token", "iam", "bound_keypair", "secret")


class ConfigFile(NamedTuple):
    """A tbot.yaml, the secrets in it, and the attributes that may leave."""

    text: str
    secrets: list[str]
    attributes: dict[str, str | int]


@st.composite
def config_files(draw: st.DrawFn) -> ConfigFile:
    """Generate files of version 1 or 2, with a secret in every possible place."""
    secrets = draw(st.lists(SECRETS, min_size=5, max_size=9, unique=True))
    next_secret = itertools.cycle(secrets).__next__
    kinds: Counter[str] = Counter()
    document: dict[str, Any] = {
        next_secret(): {next_secret(): [next_secret()]},
        "auth_server": next_secret(),
    }
    if draw(st.booleans()):
        document |= {"version": "v2", "outputs": [], "services": []}
        for type_ in draw(st.lists(st.sampled_from([*V2_TYPES]), max_size=5)):
            document[draw(st.sampled_from(["outputs", "services"]))].append(
                {
                    "type": type_ or next_secret(),
                    "app_name": next_secret(),
                    "database": next_secret(),
                    "roles": [next_secret()],
                    "selectors": {next_secret(): next_secret()},
                    "destination": {"type": "directory", "path": next_secret()},
                }
            )
            kinds[V2_TYPES[type_]] += 1
    else:
        document |= {"proxy_server": next_secret(), "destinations": []}
        document |= draw(st.sampled_from([{}, {"version": "v1"}]))
        for kind in draw(st.lists(st.sampled_from(["other", "database", *V1_FIELDS]), max_size=5)):
            document["destinations"].append(
                {
                    **({V1_FIELDS[kind]: next_secret()} if kind in V1_FIELDS else {}),
                    **({"database": {"service": next_secret()}} if kind == "database" else {}),
                    "directory": {"path": next_secret(), next_secret(): next_secret()},
                    "configs": [next_secret(), {next_secret(): {next_secret(): next_secret()}}],
                }
            )
            kinds[kind] += 1
    method = draw(st.sampled_from(METHODS))
    join_method = next_secret() if method == "secret" else method
    if method and draw(st.booleans()):
        uri_method = re.sub("[^a-z0-9]", "-", join_method)
        document["join_uri"] = (
            f"tbot+proxy+{uri_method}://{quote(next_secret())}@{next_secret()}:443"
        )
    else:
        document["onboarding"] = {
            "join_method": join_method,
            "token": next_secret(),
            "ca_path": next_secret(),
            "ca_pins": [next_secret()],
            next_secret(): next_secret(),
        }
    if draw(st.booleans()):
        document["oneshot"] = draw(st.booleans())
    text = yaml.safe_dump(document, allow_unicode=draw(st.booleans()))
    anchor = re.sub("[^0-9A-Za-z]", "x", next_secret())
    text += f"anchor: &{anchor} a\nalias: *{anchor}\n"
    text += "".join(f"# {secret}\n" for secret in secrets if secret.isprintable())
    attributes = {
        "tbot.run_mode": "one-shot" if document.get("oneshot") else "daemon",
        "tbot.version": "18.3.0",
        "tbot.join_type": OTHER if method == "secret" else method,
        # The variable has a secret.
        "tbot.helper": OTHER,
        **{name: kinds[name.rpartition("_")[2]] for name in COUNT_NAMES},
    }
    return ConfigFile(text, [*secrets, anchor], attributes)


@pytest.mark.usefixtures("instrumented_requests")
@examples(20, large=True)
@given(secrets=SECRET_SETS, file=config_files(), tail=IDENTITIES)
def test_command(
    *,
    server: RecordingServer,
    exporter: TbotLogExporter,
    tmp_path_factory: pytest.TempPathFactory,
    secrets: Secrets,
    file: ConfigFile,
    tail: str,
) -> None:
    """Only the structure of a tbot.yaml leaves, and no secret is printed."""
    path = tmp_path_factory.getbasetemp() / "tbot.yaml"
    path.write_text(file.text, encoding="utf-8")
    options = ["--config", str(path), "--tbot-version", f"18.3.0+{tail}"]
    with pipeline_with_secrets(exporter, secrets, server.environ) as (_, _, output):
        assert main(["emit", *options]) == 0
        sent = assert_one_record_sent(server, [secrets, file.secrets, tail])
        assert main(["preview", *options]) == 0
    assert server.take_received() == []
    assert_absent([file.secrets, tail], output.getvalue())
    assert sent.attributes == file.attributes


MALFORMED_FILES = [
    "version: {0}",
    "{0}",
    "[{0}]",
    "{0}: 1\n{0}: 2",
    "oneshot: {0}",
    "onboarding: {0}",
    "onboarding: {{join_method: [{0}]}}",
    "join_uri: {0}",
    "join_uri: [{0}]",
    "outputs: [{{type: {0}}}]",
    "destinations: {0}",
    "destinations: [{0}]",
    "destinations: [{{app: {0}, kubernetes_cluster: {0}}}]",
    "destinations: [{{app: {0}, configs: [{{ssh_host_cert: {0}}}]}}]",
    "version: v2\nservices: {0}",
    "version: v2\noutputs: [{0}]",
    "version: v2\noutputs: [{{type: identity, {0}: 1, {0}: 2}}]",
    "{0}: [{0}",
    "{0}: {0}\n  {0}: {0}",
    "- {0}\n{0}: {0}",
    "--- {0}\n--- {0}",
    "{0}: *{1}",
    "{0}: &{1} a\n\t{0}: *{1}",
    "!{1} {0}",
    "%{1} {0}\n{0}: 1",
    "'{1}",
    "{0}: \0{0}",
]


@examples(60)
@given(
    mistake=st.sampled_from(MALFORMED_FILES),
    secret=SECRETS,
    name=matching("[a-z]{4,9}-[a-z0-9]{6}"),
)
def test_malformed_file(
    http_server: RecordingServer,
    tmp_path_factory: pytest.TempPathFactory,
    mistake: str,
    secret: str,
    name: str,
) -> None:
    """An invalid file causes an error of one line, which repeats nothing from it."""
    path = tmp_path_factory.getbasetemp() / "malformed.yaml"
    text = mistake.format(json.dumps(secret, ensure_ascii=False), name)
    path.write_text(text, encoding="utf-8")
    with captured_output(http_server.environ) as output, pytest.raises(SystemExit, match="2"):
        main(["emit", "--config", str(path)])
    assert re.fullmatch(
        rf"tbot-otel emit: {re.escape(str(path))}(:[0-9]+)?: [^\n]+\n", output.getvalue()
    )
    assert_absent([secret, name], output.getvalue())
    assert http_server.take_received() == []


@examples(40)
@given(
    words=st.sampled_from(
        [
            ["{}"],
            ["emit", "{}"],
            ["emit", "--join-method", "{}"],
            ["emit", "--tbot-version", "{}"],
            ["emit", "--destinations-other", "{}"],
            ["emit", "--destinations-web={}"],
            ["emit", "--token", "{}"],
            ["emit", "--oneshot={}"],
            ["emit", "--oneshot", "--daemon={}"],
            ["preview", "--output", "file", "{}"],
            ["status", "--json={}"],
            ["events", "{}"],
        ]
    ),
    # A number is a valid count.
    secret=SECRETS.filter(lambda text: not text.startswith("-") and not text.isdecimal()),
)
def test_invalid_argument(http_server: RecordingServer, words: list[str], secret: str) -> None:
    """An invalid argument causes an error of one line, which does not repeat it."""
    with captured_output(http_server.environ) as output, pytest.raises(SystemExit, match="2"):
        main([word.format(secret) for word in words])
    assert output.getvalue().count("\n") == 1
    assert_absent(secret, output.getvalue())
    assert http_server.take_received() == []


@examples(40)
@given(
    field=st.sampled_from(
        ["run_mode", "version", "join_type", "helper", "helper_version", *COUNT_NAMES]
    ),
    secret=SECRETS | INVALID_COUNTS,
)
def test_invalid_event(field: str, secret: object) -> None:
    """A StartEvent keeps no invalid value, and its errors repeat none."""
    field = field.removeprefix("tbot.")
    fields: dict[str, Any] = {"run_mode": "daemon", "version": "18.3.0", field: secret}
    try:
        event = StartEvent(**fields)
    except (InvalidEventError, TypeError) as error:
        # Only a type or a sign is an error.
        assert type(secret) is not str or field in [name[5:] for name in COUNT_NAMES]
        assert_absent(secret, repr(error), str(error))
        assert error.__cause__ is error.__context__ is None  # noqa: PT017 - not always raised
    else:
        if field != "helper":  # The pipeline decides on that.
            assert_absent(secret, repr(event), repr(event.attributes), repr(event.changes))


@examples(24, large=True)
@given(
    secrets=SECRET_SETS,
    name=SECRETS | st.sampled_from(["", "tbot.start ", "Tbot.Start", "tbot.stop"]),
    count=st.dictionaries(st.sampled_from(COUNT_NAMES), INVALID_COUNTS | st.just("3")),
)
def test_nothing_leaves(
    server: RecordingServer,
    exporter: TbotLogExporter,
    secrets: Secrets,
    name: str,
    count: dict[str, Any],
) -> None:
    """Nothing leaves from any other event, or from a start with an invalid count."""
    record = LogRecord(
        event_name="tbot.start" if count else name,
        body=secrets.body,
        attributes=secrets.attributes | count,
    )
    with pipeline_with_secrets(exporter, secrets, server.environ) as (provider, _, output):
        provider.get_logger(secrets.scope).emit(record)
    assert_absent([name, *count.values()], output.getvalue())
    assert server.take_received() == []


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize(
    ("helper", "can_be_allowed"),
    [
        # Words. No pattern can tell a helper's name from another name.
        ("terraform", True),
        ("web-01", True),
        ("alices-laptop", True),
        ("home/alice", True),
        ("gha:teleport-actions/auth-of-alice", True),
        # Forms that a helper's name cannot have.
        ("web-01.corp.example", False),
        ("ip-10-0-0-1", False),
        ("10.0.0.1", False),
        ("fe80::1", False),
        ("a8:bb:cc:dd:ee:ff", False),
        ("AA-BB-CC-DD-EE-FF", False),
        ("aa_bb_cc_dd_ee_f0", False),
        ("alice@corp", False),
        ("123456789012", False),
        ("account-123456789012", False),
        ("deadbeefcafe", False),
        ("/home/alice", False),
        ("gha:/home/alice", False),
        ("C:\\Users\\alice", False),
        ("two words", False),
        ("a" * 65, False),
        ("alic\u00e9", False),
        ("alice\n", False),
    ],
)
def test_helper(
    http_server: RecordingServer, helper: str, *, can_be_allowed: bool, allowed: bool
) -> None:
    """A helper that is not known leaves only if it is allowed and has the form of a name."""
    variables = {
        "_TBOT_TELEMETRY_HELPER": helper,
        "_TBOT_TELEMETRY_HELPER_VERSION": "1.2.3",
    }
    with captured_output({**http_server.environ, **variables}) as output:
        option = ["--allow-helper", helper] if allowed and can_be_allowed else []
        assert main(["emit", "--tbot-version", "18.3.0", *option]) == 0
    (received,) = http_server.take_received()
    attributes = parse_request(received).attributes
    sent = attributes["tbot.helper"], attributes.get("tbot.helper_version")
    assert sent == ((helper, "1.2.3") if option else (OTHER, None))
    assert_absent(helper, output.getvalue())


def assert_unlinkable(server: RecordingServer) -> tuple[str, str]:
    """Check that two starts were received, that nothing links them, and return their sessions."""
    first, second = server.take_received()
    assert first.head == second.head
    anonymous = []
    for request in (parse_request(first).request, parse_request(second).request):
        (logs,) = request.resource_logs
        (record,) = logs.scope_logs[0].log_records
        record.ClearField("time_unix_nano")
        record.ClearField("observed_time_unix_nano")
        (session,) = (item for item in logs.resource.attributes if item.key == "session.id")
        logs.resource.attributes.remove(session)
        anonymous.append(request)
    assert anonymous[0] == anonymous[1]
    return parse_request(first).session, parse_request(second).session


def test_two_starts_in_one_process(server: RecordingServer, exporter: TbotLogExporter) -> None:
    """Two starts through one exporter differ only in session and time, and share no cookie."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    event = StartEvent(run_mode="daemon", version="18.3.0")
    with captured_output(server.environ):
        sessions = [record_start(event, logger_provider=provider) for _ in range(2)]
        for session in sessions:
            assert session.flush(WAIT_SECONDS).status is Status.DELIVERED
    assert {*assert_unlinkable(server)} == {session.id for session in sessions}
    assert sessions[0].id != sessions[1].id


def test_two_starts_in_two_processes(server: RecordingServer) -> None:
    """Two runs of the command differ only in session and time."""
    for _ in range(2):
        done = run_python(
            "-m", "tbot_otel", "emit", "--tbot-version", "18.3.0", timeout=60, **server.environ
        )
        assert done.returncode == 0, done.stderr
    first, second = assert_unlinkable(server)
    assert first != second


FORK_SCRIPT = """
import os
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from tbot_otel import StartEvent, TbotLogExporter, record_start
from tbot_otel.pipeline.record import EventLogRecord
from tbot_otel.policy import decide
provider = LoggerProvider()
provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter()))

def start(version):
    event = StartEvent(run_mode="daemon", version=version)
    session = record_start(event, logger_provider=provider)
    session.flush(10)
    provider.get_logger("a library").emit(event_name="tbot.start", attributes=event.attributes)
    return EventLogRecord(decide("tbot.start", event.attributes), session._start)

record = start("18.0.0")
child = os.fork()
if child == 0:
    start("19.0.0")
    provider.get_logger("a library").emit(record)  # the parent's
    os._exit(0)
os.waitpid(child, 0)
"""


def test_fork(http_server: RecordingServer) -> None:
    """A forked child never sends a session of its parent."""
    done = run_python("-W", "ignore", "-c", FORK_SCRIPT, timeout=60, **http_server.environ)
    assert done.returncode == 0, done.stderr
    parent, parent_emitted, child, child_emitted, parent_record_in_child = [
        parse_request(it) for it in http_server.take_received()
    ]
    assert [it.attributes["tbot.version"] for it in (parent, parent_emitted)] == ["18.0.0"] * 2
    assert [it.attributes["tbot.version"] for it in (child, child_emitted)] == ["19.0.0"] * 2
    starts = (parent, parent_emitted, child, child_emitted, parent_record_in_child)
    assert len({it.session for it in starts}) == 5


def test_netrc(server: RecordingServer, tmp_path: Path) -> None:
    """The login in a person's .netrc, which HTTP clients look up, is not sent."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login alice password a-secret-of-alice\n")
    with captured_output({**server.environ, "NETRC": str(netrc)}):
        assert main(["emit", "--tbot-version", "18.3.0"]) == 0
    assert_one_record_sent(server, "alice:a-secret-of-alice")


@pytest.mark.parametrize("command", [["emit", "--tbot-version", "18.3.0"], ["status"]], ids=str)
def test_credentials_of_an_endpoint(http_server: RecordingServer, command: list[str]) -> None:
    """The Collector's credentials are not printed."""
    secrets = ["a-user-name", "a-password", "a-token-in-the-query", "a-token-in-a-header"]
    user, password, query, header = secrets
    environ = {
        **http_server.environ,
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://{user}:{password}@127.0.0.1:{http_server.port}/?{query}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{header}",
    }
    with captured_output(environ) as output:
        assert main(command) == 0
    assert f"http://127.0.0.1:{http_server.port}/" in output.getvalue()
    assert_absent(secrets, output.getvalue())
    http_server.take_received()


LOGINS = ("", "a-user-name:a-password@")
LOGGING_SCRIPT = """
import logging, sys
if sys.argv[1:]:
    logging.basicConfig(level=logging.DEBUG)
from tbot_otel import StartEvent, record_start
print(record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(30).status.name)
"""


@pytest.mark.parametrize(
    ("words", "port", "login"),
    [
        *((["debug"], "accepted", login) for login in LOGINS),
        *((words, "refused", LOGINS[1]) for words in (["debug"], [])),
    ],
    ids=str,
)
def test_logs_of_libraries(
    server: RecordingServer, words: list[str], port: str, login: str
) -> None:
    """No library logs a header, a query or a login while we send."""
    secrets = ["a-user-name", "a-password", "a-token-in-the-query", "a-token-in-a-header"]
    *_, query, header = secrets
    host = f"{login}127.0.0.1:{server.port if port == 'accepted' else free_port()}"
    suffix = "" if server.protocol == "grpc" else f"/v1/logs?{query}"
    environ = {
        **server.environ,
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://{host}{suffix}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-tenant={header}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    done = run_python("-c", LOGGING_SCRIPT, *words, timeout=60, **environ)
    login_is_refused = login and server.protocol == "grpc"
    is_delivered = port == "accepted" and not login_is_refused
    assert (done.returncode, done.stdout) == (0, "DELIVERED\n" if is_delivered else "FAILED\n")
    assert_absent(secrets, done.stderr)
    server.take_received()


AUTOCONFIGURATION_SCRIPT = """
import json, sys
from opentelemetry import baggage
from opentelemetry.context import attach
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize(swallow_exceptions=False)
from opentelemetry._logs import get_logger_provider
secret = sys.argv[1]
attach(baggage.set_baggage("item", secret))
provider = get_logger_provider()
provider.get_logger(secret).emit(event_name="tbot.start", body=secret, attributes={secret: secret})
print(json.dumps(dict(provider.resource.attributes)))
"""


@examples(1, large=True)
@given(secrets=SECRET_SETS)
def test_autoconfiguration(server: RecordingServer, secrets: Secrets) -> None:
    """Only the registry's attributes leave from a pipeline that variables configure."""
    environ = {
        "OTEL_LOGS_EXPORTER": "tbot",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "host,os,process",
        "PYTHONWARNINGS": "ignore",  # the oldest SDK imports its own deprecated modules
        **server.environ,
        **environ_with(secrets),
    }
    done = run_python("-c", AUTOCONFIGURATION_SCRIPT, secrets.exception, timeout=60, **environ)
    resource = json.loads(done.stdout)
    assert resource["session.id"] == secrets.session
    assert {"host.name", "process.command", "os.version"} <= resource.keys()
    allowed = {item.name for item in RESOURCE}
    detected = [value for name, value in resource.items() if name not in allowed]
    assert_one_record_sent(server, [secrets, detected])
    assert_absent(secrets, done.stderr)


@examples(1, large=True)
@given(secrets=SECRET_SETS, file=config_files(), tail=IDENTITIES)
def test_output_of_tbot(
    server: RecordingServer,
    tmp_path_factory: pytest.TempPathFactory,
    secrets: Secrets,
    file: ConfigFile,
    tail: str,
) -> None:
    """Only the version leaves from the output of `tbot version`."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "tbot.yaml").write_text(file.text, encoding="utf-8")
    tbot = folder / "tbot"
    version = shlex.quote(f"Teleport v18.3.0+{tail} git:{tail} go1.24.9")
    tbot.write_text(f"#!/bin/sh\necho {version}\necho {version} >&2\n")
    tbot.chmod(0o755)
    environ = {**server.environ, **environ_with(secrets), "PATH": str(folder)}
    words = ["-m", "tbot_otel", "emit", "--config", str(folder / "tbot.yaml")]
    done = run_python(*words, timeout=60, **environ)
    assert done.returncode == 0, done.stderr
    assert_absent([secrets, file.secrets, tail], done.stdout, done.stderr)
    assert (
        assert_one_record_sent(server, [secrets, file.secrets, tail]).attributes == file.attributes
    )


@pytest.mark.usefixtures("instrumented_requests")
def test_search_can_fail(http_server: RecordingServer) -> None:
    """The search finds what an ordinary client sends within a span."""
    secrets = [
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        "some-state",
        "some-item",
        "some-body",
    ]
    *ids, body = secrets
    with active_span(*ids):
        requests.post(f"http://127.0.0.1:{http_server.port}", data=body.encode(), timeout=10)
    (received,) = http_server.take_received()
    for secret in secrets:
        with pytest.raises(AssertionError):
            assert_absent(secret, received.head, received.body)
