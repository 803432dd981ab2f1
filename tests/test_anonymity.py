"""Anonymity: put secrets wherever they could come from, and search what a socket received.

``HYPOTHESIS_PROFILE=long`` tries ten times as many examples.
"""

import base64
import contextlib
import io
import itertools
import json
import logging
import os
import re
import shlex
import socketserver
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import distributions
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
import jsonschema  # type: ignore[import-untyped]
import pytest
import requests
import yaml
from google.protobuf import json_format
from hypothesis import HealthCheck, Phase, given, settings
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

from collectors import run
from tbot_otel import (
    InvalidEventError,
    StartEvent,
    Status,
    TbotLogExporter,
    __version__,
    destination,
    record_start,
)
from tbot_otel.cli import main
from tbot_otel.events import OTHER, RESOURCE, START

INSTALLED = {distribution.name for distribution in distributions()}
PROTOCOLS = [name for name, package in destination.PACKAGES.items() if package in INSTALLED]


def examples(number: int, *, large: bool = False) -> settings:
    """Try so many examples; if one fails, look for a smaller one unless they are large."""
    return settings(
        max_examples=number * (10 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1),
        deadline=None,
        derandomize=False,  # not even where CI is set
        print_blob=True,
        phases=[phase for phase in Phase if phase is not Phase.shrink or not large],
        suppress_health_check=[HealthCheck.too_slow],
    )


class Received(NamedTuple):
    """A request as it came over the socket: what is before its body, and that."""

    head: bytes
    body: bytes


class Wire:
    """A server on loopback that keeps all that it is sent, and gives a cookie for it."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.port = 0
        self._received: list[Received] = []

    def take(self) -> list[Received]:
        """What it has received since it was asked last."""
        taken, self._received = self._received, []
        return taken

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a process that has opted in, and sends here."""
        return {
            "TELEPORT_ANONYMOUS_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
        }

    @contextlib.contextmanager
    def running(self) -> Iterator["Wire"]:
        """Serve until the block ends."""
        with self._grpc() if self.protocol == "grpc" else self._http():
            yield self

    @contextlib.contextmanager
    def _http(self) -> Iterator[None]:
        wire = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    head = line
                    while line not in (b"\r\n", b""):
                        line = self.rfile.readline()
                        head += line
                    length = re.search(rb"(?i)\ncontent-length: ([0-9]+)", head)
                    body = self.rfile.read(int(length[1]) if length else 0)
                    wire._received.append(Received(head, body))
                    self.wfile.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: id=1; Path=/\r\n\r\n"
                    )

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            self.port = int(server.server_address[1])
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield
            finally:
                server.shutdown()

    @contextlib.contextmanager
    def _grpc(self) -> Iterator[None]:
        def export(body: bytes, context: Any) -> bytes:
            metadata = context.invocation_metadata()
            head = "".join(f"{entry.key}: {entry.value}\r\n" for entry in metadata)
            self._received.append(Received(head.encode(), body))
            return b""

        server = grpc.server(ThreadPoolExecutor(2))
        service = "opentelemetry.proto.collector.logs.v1.LogsService"
        methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield
        finally:
            server.stop(0).wait()


@pytest.fixture(scope="module", params=PROTOCOLS)
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A server, of each protocol that can be spoken here."""
    with Wire(request.param).running() as server:
        yield server


@pytest.fixture(scope="module")
def http() -> Iterator[Wire]:
    """A server of the protocol that is spoken unless another is asked for."""
    with Wire("http/protobuf").running() as server:
        yield server


@contextlib.contextmanager
def overheard(environ: Mapping[str, str]) -> Iterator[io.StringIO]:
    """Set variables, and listen to what is printed, and to what our own logger says."""
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


# What a record may be


@cache
def schema() -> jsonschema.Draft202012Validator:
    """What ``tbot-otel events --json`` prints."""
    with overheard({}) as output:
        assert main(["events", "--json"]) == 0
    return jsonschema.Draft202012Validator(json.loads(output.getvalue()))


HEADERS = {
    *("accept", "accept-encoding", "connection", "content-length", "content-type", "host"),
    "user-agent",
}


class Sent(NamedTuple):
    """What a request says."""

    session: str
    attributes: dict[str, str | int]
    request: ExportLogsServiceRequest


def read(received: Received) -> Sent:
    """Check that a request is one record of the registry and nothing besides, and read it."""
    names = {name.decode().lower() for name in re.findall(rb"(?m)^([^:\r\n]+): ", received.head)}
    assert names <= HEADERS
    as_json = received.body.startswith(b"{")
    request = ExportLogsServiceRequest()
    if as_json:
        json_format.Parse(received.body, request)
    else:
        request.ParseFromString(received.body)
    (logs,) = request.resource_logs
    (scope_logs,) = logs.scope_logs
    (record,) = scope_logs.log_records
    resource, attributes = plain(logs.resource.attributes), plain(record.attributes)
    # Whoever writes all of this into a new request must come to the same bytes.
    anew = ExportLogsServiceRequest()
    logs_anew = anew.resource_logs.add()
    logs_anew.resource.attributes.extend(logs.resource.attributes)
    scope_anew = logs_anew.scope_logs.add()
    scope_anew.scope.name, scope_anew.scope.version = "tbot_otel", __version__
    scope_anew.log_records.add(
        time_unix_nano=record.time_unix_nano,
        observed_time_unix_nano=record.observed_time_unix_nano,
        severity_number=9,
        severity_text="INFO",
        event_name="tbot.start",
        body=AnyValue() if record.HasField("body") else None,  # the newest SDK writes an empty one
        attributes=record.attributes,
    )
    assert request == anew
    assert as_json or received.body == anew.SerializeToString()
    schema().validate(
        {"event_name": record.event_name, "attributes": attributes, "resource": resource}
    )
    assert resource.keys() == {item.name for item in RESOURCE}
    optional = {item.name for item in START.attributes if item.optional}
    assert attributes.keys() | optional == {item.name for item in START.attributes}
    session = uuid.UUID(str(resource["session.id"]))
    assert (session.version, session.variant) == (4, uuid.RFC_4122)
    return Sent(str(session), attributes, request)


def plain(attributes: Any) -> dict[str, str | int]:
    """Attributes as a dict; no key may come twice, and no value be of another type."""
    assert len({attribute.key for attribute in attributes}) == len(attributes)
    kinds = {attribute.value.WhichOneof("value") for attribute in attributes}
    assert kinds <= {"string_value", "int_value"}
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value"))
        for attribute in attributes
    }


# What a secret may be


def matching(pattern: str) -> st.SearchStrategy[str]:
    """Texts that match a pattern."""
    return st.from_regex(pattern, fullmatch=True)


MACS = st.binary(min_size=6, max_size=6)
# Forms that identify: policy has to refuse each of them, wherever it stands.
IDENTITIES = st.one_of(
    matching("[a-z]{3,9}(-[a-z0-9]{1,5})?([.][a-z]{2,9}){2}"),
    matching("ip(-[1-9][0-9]{0,2}){4}"),
    st.ip_addresses(v=4).filter(lambda address: not address.is_loopback).map(str),
    st.ip_addresses(v=6).map(str),
    MACS.map(lambda mac: mac.hex(":")),
    MACS.map(lambda mac: mac.hex("-").upper()),
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
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=30)
# All of ours is ASCII, so that no text can be in it by chance.
SECRETS = IDENTITIES | TEXTS.filter(lambda text: not text.isascii())
VALUES: st.SearchStrategy[Any] = st.recursive(
    SECRETS | SECRETS.map(str.encode) | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(SECRETS, inner, max_size=2),
    max_leaves=4,
)


NO_COUNTS = (
    st.booleans()
    | st.floats(0, 9)
    | st.integers(max_value=-1)
    | st.integers(2**31, 2**63 - 1)
    | VALUES.filter(lambda value: value is not None and type(value) is not int)
)


def leaves(value: object) -> Iterator[str | bytes]:
    """All texts in a value, keys included, that are too long to be anywhere by chance."""
    if isinstance(value, str | bytes):
        if len(value) >= 8:
            yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from leaves(pair)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)


def traces(secret: str | bytes) -> Iterator[bytes]:
    """The forms in which a secret could be found again."""
    if isinstance(secret, bytes):
        secret = secret.decode()
    yield from (secret.encode(), quote(secret).encode(), json.dumps(secret)[1:-1].encode())
    yield base64.b64encode(secret.encode()).rstrip(b"=")
    digits = re.sub("[:-]", "", secret)
    if re.fullmatch("([0-9A-Fa-f]{2}){6,}", digits):
        yield from (digits.encode(), bytes.fromhex(digits))
    with contextlib.suppress(ValueError):
        yield IPv6Address(secret).packed


def assert_absent(secrets: object, *places: bytes | str) -> None:
    """Search places for secrets."""
    for place in places:
        found = place.encode(errors="surrogateescape") if isinstance(place, str) else place
        for secret in leaves(secrets):
            for trace in traces(secret):
                assert trace.lower() not in found.lower()


def assert_sent(wire: Wire, secrets: object) -> Sent:
    """Check that one record was received, and none of the secrets."""
    (received,) = wire.take()
    assert_absent(secrets, *received)
    return read(received)


# Where they come from


class Places(NamedTuple):
    """The secrets of one process, by where they stand."""

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
PLACES = st.builds(
    Places,
    helper=IDENTITIES,
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
# A record's own attributes, with what must not be in them.
WRONG = st.fixed_dictionaries(
    {},
    optional={
        "tbot.run_mode": SECRETS | VALUES,
        "tbot.version": SECRETS | VALUES,
        "tbot.join_type": SECRETS | VALUES,
        "tbot.helper": IDENTITIES | IDENTITIES.map("gha:{}".format),
        "tbot.helper_version": SECRETS | VALUES,
    },
)
COUNTS = [item.name for item in START.attributes if item.type == "int"]


def variables(secrets: Places) -> dict[str, str]:
    """The environment of a process with secrets in it."""
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
def tracing(trace: str, span: str, state: str, item: str) -> Iterator[Context]:
    """Run a block in an active span, with baggage."""
    flags, tracestate = TraceFlags(TraceFlags.SAMPLED), TraceState([("vendor", state)])
    parent = SpanContext(int(trace, 16), int(span, 16), False, flags, tracestate)
    active = set_span_in_context(NonRecordingSpan(parent))
    token = attach(baggage.set_baggage("item", item, active))
    try:
        yield active
    finally:
        detach(token)


class AtOnce(SimpleLogRecordProcessor):
    """A processor that exports in the span and with the baggage of whoever emits."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Export a record."""
        resource, scope = log_record.resource, log_record.instrumentation_scope
        assert resource is not None
        self._exporter.export([ReadableLogRecord(log_record.log_record, resource, scope)])


@contextlib.contextmanager
def pipeline(
    exporter: TbotLogExporter,
    secrets: Places,
    environ: dict[str, str],
    processor: type[SimpleLogRecordProcessor] = SimpleLogRecordProcessor,
) -> Iterator[tuple[LoggerProvider, Context, io.StringIO]]:
    """Run a block with secrets around it: a provider, an active span, baggage, variables."""
    with (
        overheard(environ | variables(secrets)) as output,
        tracing(secrets.trace, secrets.span, secrets.tracestate, secrets.baggage) as active,
    ):
        attributes = {"host.name": secrets.environ, "session.id": secrets.session}
        resource = Resource.create(attributes | secrets.resource, secrets.schema)
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(processor(exporter))
        yield provider, active, output
    assert_absent(secrets, output.getvalue())


@pytest.fixture(scope="module")
def exporter(wire: Wire) -> Iterator[TbotLogExporter]:
    """An exporter of ours, as a pipeline has it."""
    suffix = "" if wire.protocol == "grpc" else "/v1/logs"
    endpoint = f"http://127.0.0.1:{wire.port}{suffix}"
    exporter = TbotLogExporter(protocol=wire.protocol, endpoint=endpoint)
    yield exporter
    exporter.shutdown()


@pytest.fixture(scope="module")
def instrumented() -> Iterator[None]:
    """Have HTTP requests carry the active span and the baggage."""
    RequestsInstrumentor().instrument()
    yield
    RequestsInstrumentor().uninstrument()


@pytest.mark.usefixtures("instrumented")
@examples(60, large=True)
@given(
    secrets=PLACES,
    wrong=WRONG,
    counts=st.fixed_dictionaries(dict.fromkeys(COUNTS, st.integers(0, 2**31 - 1))),
    processor=st.sampled_from([SimpleLogRecordProcessor, AtOnce]),
)
def test_pipeline(
    *,
    wire: Wire,
    exporter: TbotLogExporter,
    secrets: Places,
    wrong: dict[str, Any],
    counts: dict[str, int],
    processor: type[SimpleLogRecordProcessor],
) -> None:
    """Of a start that anybody emits, only what the registry knows leaves."""
    with pipeline(exporter, secrets, wire.environ, processor) as (provider, active, output):
        record = LogRecord(
            context=active,
            body=secrets.body,
            severity_text=secrets.severity,
            attributes={"tbot.join_type": "iam", **counts, **wrong, **secrets.attributes},
            event_name="tbot.start",
        )
        record.exception = ValueError(secrets.exception)
        scope = secrets.scope, secrets.scope_version, secrets.schema, secrets.scope_attributes
        provider.get_logger(*scope).emit(record)
        sent = assert_sent(wire, [secrets, *wrong.values()])
    assert_absent([*wrong.values()], output.getvalue())
    assert sent.attributes == {
        "tbot.run_mode": OTHER,
        "tbot.version": OTHER,
        "tbot.join_type": OTHER if "tbot.join_type" in wrong else "iam",
        **counts,
    }


@pytest.mark.usefixtures("instrumented")
@examples(40, large=True)
@given(
    secrets=PLACES,
    version=st.sampled_from(["18.3.0+{}", "18.3.0-{}", "18.3.0-dev.{}", "18.3.0-dev.{}.1+x"]),
    tail=IDENTITIES,
    private=st.booleans(),
)
def test_record_start(
    *,
    wire: Wire,
    exporter: TbotLogExporter,
    secrets: Places,
    version: str,
    tail: str,
    private: bool,
) -> None:
    """Of a start that is recorded, in our pipeline or in theirs, neither does more leave."""
    with pipeline(exporter, secrets, wire.environ) as (provider, _, output):
        event = StartEvent(run_mode="daemon", version=version.format(tail))
        session = record_start(event, logger_provider=None if private else provider)
        assert session.flush(10).status is Status.DELIVERED
        sent = assert_sent(wire, [secrets, tail])
    assert_absent(tail, output.getvalue(), repr(event))
    assert sent.session == session.id
    number = str(sent.attributes.pop("tbot.version"))
    assert re.fullmatch(r"18\.3\.0(-(alpha|beta|rc|dev)(\.[0-9]{1,3})?)?", number)
    assert sent.attributes == {
        "tbot.run_mode": "daemon",
        "tbot.join_type": "",
        **dict.fromkeys(COUNTS, 0),
    }


V2_TYPES = {
    "application": "application",
    "database": "database",
    "kubernetes": "kubernetes",
    "kubernetes/v2": "other",
    "identity": "other",
    "ssh_host": "other",
    "workload-identity-x509": "other",
    "": "other",  # a secret in its place
}
V1_FIELDS = {"application": "app", "kubernetes": "kubernetes_cluster"}
METHODS = ("", "token", "iam", "bound_keypair", "secret")


class File(NamedTuple):
    """A tbot.yaml, the secrets in it, and what leaves of it."""

    text: str
    secrets: list[str]
    attributes: dict[str, str | int]


@st.composite
def files(draw: st.DrawFn) -> File:
    """Make files of version 1 or 2, with a secret in every place that can have one."""
    secrets = draw(st.lists(SECRETS, min_size=5, max_size=9, unique=True))
    another = itertools.cycle(secrets).__next__
    kinds: Counter[str] = Counter()
    document: dict[str, Any] = {another(): {another(): [another()]}, "auth_server": another()}
    if draw(st.booleans()):
        document |= {"version": "v2", "outputs": [], "services": []}
        for type_ in draw(st.lists(st.sampled_from([*V2_TYPES]), max_size=5)):
            document[draw(st.sampled_from(["outputs", "services"]))].append(
                {
                    "type": type_ or another(),
                    "app_name": another(),
                    "database": another(),
                    "roles": [another()],
                    "selectors": {another(): another()},
                    "destination": {"type": "directory", "path": another()},
                }
            )
            kinds[V2_TYPES[type_]] += 1
    else:
        document |= {"proxy_server": another(), "destinations": []}
        document |= draw(st.sampled_from([{}, {"version": "v1"}]))
        for kind in draw(st.lists(st.sampled_from(["other", "database", *V1_FIELDS]), max_size=5)):
            document["destinations"].append(
                {
                    **({V1_FIELDS[kind]: another()} if kind in V1_FIELDS else {}),
                    **({"database": {"service": another()}} if kind == "database" else {}),
                    "directory": {"path": another(), another(): another()},
                    "configs": [another(), {another(): {another(): another()}}],
                }
            )
            kinds[kind] += 1
    method = draw(st.sampled_from(METHODS))
    join_method = another() if method == "secret" else method
    if method and draw(st.booleans()):
        uri_method = re.sub("[^a-z0-9]", "-", join_method)
        document["join_uri"] = f"tbot+proxy+{uri_method}://{quote(another())}@{another()}:443"
    else:
        document["onboarding"] = {
            "join_method": join_method,
            "token": another(),
            "ca_path": another(),
            "ca_pins": [another()],
            another(): another(),
        }
    if draw(st.booleans()):
        document["oneshot"] = draw(st.booleans())
    text = yaml.safe_dump(document, allow_unicode=draw(st.booleans()))
    anchor = re.sub("[^0-9A-Za-z]", "x", another())
    text += f"anchor: &{anchor} a\nalias: *{anchor}\n"
    text += "".join(f"# {secret}\n" for secret in secrets if secret.isprintable())
    attributes = {
        "tbot.run_mode": "one-shot" if document.get("oneshot") else "daemon",
        "tbot.version": "18.3.0",
        "tbot.join_type": OTHER if method == "secret" else method,
        **{name: kinds[name.rpartition("_")[2]] for name in COUNTS},
    }
    return File(text, [*secrets, anchor], attributes)


@pytest.mark.usefixtures("instrumented")
@examples(50, large=True)
@given(secrets=PLACES, file=files(), tail=IDENTITIES)
def test_command(
    *,
    wire: Wire,
    exporter: TbotLogExporter,
    tmp_path_factory: pytest.TempPathFactory,
    secrets: Places,
    file: File,
    tail: str,
) -> None:
    """Of a tbot.yaml and an environment, only structure leaves, and nothing else is printed."""
    path = tmp_path_factory.getbasetemp() / "tbot.yaml"
    path.write_text(file.text, encoding="utf-8")
    options = ["--config", str(path), "--tbot-version", f"18.3.0+{tail}"]
    with pipeline(exporter, secrets, wire.environ) as (_, _, output):
        assert main(["emit", *options]) == 0
        sent = assert_sent(wire, [secrets, file.secrets, tail])
        assert main(["preview", *options]) == 0
    assert wire.take() == []
    assert_absent([file.secrets, tail], output.getvalue())
    assert sent.attributes == file.attributes


MISTAKES = [
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


@examples(150)
@given(mistake=st.sampled_from(MISTAKES), secret=SECRETS, name=matching("[a-z]{4,9}-[a-z0-9]{6}"))
def test_malformed_file(
    http: Wire, tmp_path_factory: pytest.TempPathFactory, mistake: str, secret: str, name: str
) -> None:
    """A file that cannot be counted is an error of one line, which repeats nothing of it."""
    path = tmp_path_factory.getbasetemp() / "malformed.yaml"
    text = mistake.format(json.dumps(secret, ensure_ascii=False), name)
    path.write_text(text, encoding="utf-8")
    with overheard(http.environ) as output, pytest.raises(SystemExit, match="2"):
        main(["emit", "--config", str(path)])
    assert re.fullmatch(
        rf"tbot-otel emit: {re.escape(str(path))}(:[0-9]+)?: [^\n]+\n", output.getvalue()
    )
    assert_absent([secret, name], output.getvalue())
    assert http.take() == []


@examples(100)
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
    secret=SECRETS.filter(lambda text: not text.startswith("-")),
)
def test_mistaken_word(http: Wire, words: list[str], secret: str) -> None:
    """A wrong word on the command line is an error of one line, which does not repeat it."""
    with overheard(http.environ) as output, pytest.raises(SystemExit, match="2"):
        main([word.format(secret) for word in words])
    assert output.getvalue().count("\n") == 1
    assert_absent(secret, output.getvalue())
    assert http.take() == []


@examples(100)
@given(
    field=st.sampled_from(
        ["run_mode", "version", "join_type", "helper", "helper_version", *COUNTS]
    ),
    secret=IDENTITIES | NO_COUNTS,
)
def test_invalid_event(field: str, secret: object) -> None:
    """A start that is given what it cannot have is an error that does not repeat it."""
    field = field.removeprefix("tbot.")
    fields: dict[str, Any] = {
        "run_mode": "daemon",
        "version": "18.3.0",
        "helper": "a",
        field: secret,
    }
    with pytest.raises(InvalidEventError) as raised:
        StartEvent(**fields)
    assert_absent(secret, repr(raised.value), str(raised.value))
    assert raised.value.__cause__ is raised.value.__context__ is None


@examples(60, large=True)
@given(
    secrets=PLACES,
    name=SECRETS | st.sampled_from(["", "tbot.start ", "Tbot.Start", "tbot.stop"]),
    count=st.dictionaries(st.sampled_from(COUNTS), NO_COUNTS | st.just("3")),
)
def test_nothing_leaves(
    wire: Wire, exporter: TbotLogExporter, secrets: Places, name: str, count: dict[str, Any]
) -> None:
    """Of any other event, and of a start with a count that is none, nothing leaves at all."""
    record = LogRecord(
        event_name="tbot.start" if count else name,
        body=secrets.body,
        attributes=secrets.attributes | count,
    )
    with pipeline(exporter, secrets, wire.environ) as (provider, _, output):
        provider.get_logger(secrets.scope).emit(record)
    assert_absent([name, *count.values()], output.getvalue())
    assert wire.take() == []


@pytest.mark.parametrize(
    ("helper", "leaves"),
    [
        # Words, which only the helper chooses, and which nothing can tell from a name.
        ("gha:teleport-actions/auth", True),
        ("terraform", True),
        ("web-01", True),
        ("alices-laptop", True),
        ("home/alice", True),
        # What cannot be a helper's name.
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
def test_helper(http: Wire, helper: str, leaves: bool) -> None:
    """A helper is a word or a path of words; whatever has the form of an identity stays here."""
    with overheard({**http.environ, "_TBOT_TELEMETRY_HELPER": helper}):
        assert main(["emit", "--tbot-version", "18.3.0"]) == 0
    (received,) = http.take()
    assert read(received).attributes.get("tbot.helper") == (helper if leaves else None)


def alike(wire: Wire) -> tuple[str, str]:
    """Check that two starts were received, with nothing that ties one to the other."""
    first, second = wire.take()
    assert first.head == second.head
    anonymous = []
    for request in (read(first).request, read(second).request):
        (logs,) = request.resource_logs
        (record,) = logs.scope_logs[0].log_records
        record.ClearField("time_unix_nano")
        record.ClearField("observed_time_unix_nano")
        (session,) = (item for item in logs.resource.attributes if item.key == "session.id")
        logs.resource.attributes.remove(session)
        anonymous.append(request)
    assert anonymous[0] == anonymous[1]
    return read(first).session, read(second).session


def test_two_starts_in_one_process(wire: Wire, exporter: TbotLogExporter) -> None:
    """Two starts through one exporter differ in their sessions and times, and share no cookie."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    event = StartEvent(run_mode="daemon", version="18.3.0")
    with overheard(wire.environ):
        sessions = [record_start(event, logger_provider=provider) for _ in range(2)]
        for session in sessions:
            assert session.flush(10).status is Status.DELIVERED
    assert alike(wire) == (sessions[0].id, sessions[1].id)
    assert sessions[0].id != sessions[1].id


def test_two_starts_in_two_processes(wire: Wire) -> None:
    """Two runs of the command differ in their sessions and times, and in nothing else."""
    for _ in range(2):
        done = run(
            "-m", "tbot_otel", "emit", "--tbot-version", "18.3.0", timeout=60, **wire.environ
        )
        assert done.returncode == 0, done.stderr
    first, second = alike(wire)
    assert first != second


FORK = """
import os
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from tbot_otel import StartEvent, TbotLogExporter, record_start
from tbot_otel.record import of_start
provider = LoggerProvider()
provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter()))

def start(version):
    event = StartEvent(run_mode="daemon", version=version)
    session = record_start(event, logger_provider=provider)
    session.flush(10)
    provider.get_logger("a library").emit(event_name="tbot.start", attributes=event.attributes)
    return of_start(event, session)

record = start("1.0.0")
child = os.fork()
if child == 0:
    start("2.0.0")
    provider.get_logger("a library").emit(record)  # the parent's
    os._exit(0)
os.waitpid(child, 0)
"""


def test_fork(http: Wire) -> None:
    """Nothing that a forked child sends has a session of its parent's."""
    done = run("-W", "ignore", "-c", FORK, timeout=60, **http.environ)
    assert done.returncode == 0, done.stderr
    parents, ours, childs, childs_own, parents_in_child = [read(it) for it in http.take()]
    assert [it.attributes["tbot.version"] for it in (parents, ours)] == ["1.0.0"] * 2
    assert [it.attributes["tbot.version"] for it in (childs, childs_own)] == ["2.0.0"] * 2
    sessions = {it.session for it in (parents, ours, childs, childs_own)}
    assert len(sessions) == 4
    assert parents_in_child.session == childs_own.session


def test_credentials_of_a_person(wire: Wire, tmp_path: Path) -> None:
    """A person's own login and password, which HTTP clients look up, are not sent along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login alice password a-secret-of-alice\n")
    with overheard({**wire.environ, "NETRC": str(netrc)}):
        assert main(["emit", "--tbot-version", "18.3.0"]) == 0
    assert_sent(wire, "alice:a-secret-of-alice")


@pytest.mark.parametrize("command", [["emit", "--tbot-version", "18.3.0"], ["status"]], ids=str)
def test_secrets_of_an_endpoint(http: Wire, command: list[str]) -> None:
    """Of the settings of a Collector, what lets one in is not printed."""
    secrets = ["a-user-of-it", "a-password", "a-token-in-the-query", "a-token-in-a-header"]
    user, password, query, header = secrets
    environ = {
        **http.environ,
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://{user}:{password}@127.0.0.1:{http.port}/?{query}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{header}",
    }
    with overheard(environ) as output:
        assert main(command) == 0
    assert f"http://127.0.0.1:{http.port}/" in output.getvalue()
    assert_absent(secrets, output.getvalue())
    http.take()


AUTOCONFIGURED = """
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


@examples(2, large=True)
@given(secrets=PLACES)
def test_autoconfiguration(wire: Wire, secrets: Places) -> None:
    """Of a pipeline that variables alone configure, with all of its detectors, no more leaves."""
    environ = {
        "OTEL_LOGS_EXPORTER": "tbot",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "host,os,process",
        "PYTHONWARNINGS": "ignore",  # the oldest SDK imports what it deprecates
        **wire.environ,
        **variables(secrets),
    }
    done = run("-c", AUTOCONFIGURED, secrets.exception, timeout=60, **environ)
    resource = json.loads(done.stdout)
    assert resource["session.id"] == secrets.session
    assert {"host.name", "process.command", "os.version"} <= resource.keys()
    ours = {item.name for item in RESOURCE}
    detected = [value for name, value in resource.items() if name not in ours]
    assert_sent(wire, [secrets, detected])
    assert_absent(secrets, done.stderr)


@examples(2, large=True)
@given(secrets=PLACES, file=files(), tail=IDENTITIES)
def test_what_tbot_says(
    wire: Wire, tmp_path_factory: pytest.TempPathFactory, secrets: Places, file: File, tail: str
) -> None:
    """Of what tbot says of itself, only its version leaves; also in a process of its own."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "tbot.yaml").write_text(file.text, encoding="utf-8")
    tbot = folder / "tbot"
    version = shlex.quote(f"Teleport v18.3.0+{tail} git:{tail} go1.24.9")
    tbot.write_text(f"#!/bin/sh\necho {version}\necho {version} >&2\n")
    tbot.chmod(0o755)
    environ = {**wire.environ, **variables(secrets), "PATH": str(folder)}
    words = ["-m", "tbot_otel", "emit", "--config", str(folder / "tbot.yaml")]
    done = run(*words, timeout=60, **environ)
    assert done.returncode == 0, done.stderr
    assert_absent([secrets, file.secrets, tail], done.stdout, done.stderr)
    assert assert_sent(wire, [secrets, file.secrets, tail]).attributes == file.attributes


@pytest.mark.usefixtures("instrumented")
def test_search_can_fail(http: Wire) -> None:
    """What an ordinary client sends in an active span is found by the search."""
    secrets = [
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        "some-state",
        "some-item",
        "some-body",
    ]
    *ids, body = secrets
    with tracing(*ids):
        requests.post(f"http://127.0.0.1:{http.port}", data=body.encode(), timeout=10)
    (received,) = http.take()
    for secret in secrets:
        with pytest.raises(AssertionError):
            assert_absent(secret, *received)
