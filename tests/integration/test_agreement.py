"""`status`, `status --check` and `emit` agree on whether a start can be sent."""

import json
import os
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import pytest
import trustme

from support.otlp import PROTOCOLS
from support.processes import free_port
from support.standins import GRPCStandin, HTTPStandin, Response
from tbot_otel.cli import main

PREFIX = "OTEL_EXPORTER_OTLP_"
PROVIDER = "OTEL_PYTHON_EXPORTER_OTLP_{}_CREDENTIAL_PROVIDER"
U_UMLAUT = "\N{LATIN SMALL LETTER U WITH DIAERESIS}"

# Values in which {port} is the Collector's, {tls} that of one with TLS, and {folder} has the files.
GOOD: list[dict[str, str]] = [
    {},
    *({name: ""} for name in ("TIMEOUT", "COMPRESSION", "INSECURE", "HEADERS", "CERTIFICATE")),
    *({f"LOGS_{name}": ""} for name in ("TIMEOUT", "COMPRESSION", "INSECURE", "HEADERS")),
    *({name: " "} for name in ("TIMEOUT", "LOGS_COMPRESSION", "INSECURE", "CLIENT_KEY")),
    *({"TIMEOUT": value} for value in ("0", "0.0", "30", " 30 ", "1e2", "1e99")),
    *({"COMPRESSION": value} for value in ("none", "NONE", "None", "gzip", "GZIP", " gzip ")),
    *({"INSECURE": value} for value in ("true", "false", "True", "FALSE")),
    *(
        {"HEADERS": value}
        for value in ("a=b", "a=b,c=d", " a = b ,, c=d,", "authorization=Bearer x")
    ),
    *({"HEADERS": value} for value in ("a=%20b", "A=b", "a=", "a=b=c==", "user-agent=x")),
    *({"ENDPOINT": f"{value}127.0.0.1:{{port}}"} for value in ("HTTP://", " http://")),
    *({"ENDPOINT": f"http://127.0.0.1:{{port}}{value}"} for value in ("/", " ", "\r", "\t")),
    {"ENDPOINT": "http://localhost:{port}", "http_proxy": "http://127.0.0.1:1"},
    {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"},
    {"ALL_PROXY": "ftp://proxy", "grpc_proxy": "http://127.0.0.1:1"},
    {"CERTIFICATE": "/missing", "CLIENT_KEY": "/missing"},
    {"ENDPOINT": "https://localhost:{tls}", "CERTIFICATE": "{folder}/ca.pem"},
    {"ENDPOINT": "https://127.0.0.1:{tls}", "LOGS_CERTIFICATE": "{folder}/ca.pem"},
    {
        "ENDPOINT": "https://127.0.0.1:{tls}",
        "CERTIFICATE": "{folder}/ca.pem",
        "CLIENT_CERTIFICATE": "{folder}/client.pem",
        "CLIENT_KEY": "{folder}/client.pem",
    },
    {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "junk", "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "junk"},
]
BAD: list[dict[str, str]] = [
    *({"PROTOCOL": value} for value in ("http/json", "GRPC", "junk")),
    *({"TIMEOUT": value} for value in ("10s", "-1", "nan", "inf", "-inf", "junk", "1,5")),
    *({"LOGS_TIMEOUT": value} for value in ("10s", "nan")),
    *({"COMPRESSION": value} for value in ("zstd", "br", "gzip,none", "1")),
    *({"HEADERS": value} for value in ("authorization: Bearer x", 'Authorization="Basic abc"')),
    *({"HEADERS": value} for value in ("junk", "a=b;c", "=b", "a b=c", f"a={U_UMLAUT}", "a=%0ab")),
    *({"HEADERS": f"{name}=1"} for name in ("content-length", "content-type", "Host", "te")),
    *({"HEADERS": f"{name}=1"} for name in ("transfer-encoding", "content-encoding", "connection")),
    *({"ENDPOINT": value} for value in ("http://", "http:///x", "http://a b:1", "http://x:port")),
    *(
        {"ENDPOINT": value}
        for value in ("http://x:99999", "http://x:0", "http://x:-1", "ftp://x:1")
    ),
    *({"ENDPOINT": value} for value in ("http://a..b", f"http://{64 * 'x'}:1", "http://[::1")),
    *({"ENDPOINT": f"http://127.0.0.1:{{port}}{value}"} for value in ("?a=b", "#a", "/x?y", "/ x")),
    {"ENDPOINT": "https://127.0.0.1:{tls}", "CERTIFICATE": "/missing"},
    {"ENDPOINT": "https://127.0.0.1:{tls}", "CERTIFICATE": "{folder}/junk.pem"},
    {"ENDPOINT": "https://127.0.0.1:{tls}", "CERTIFICATE": "/dev/null"},
    {"ENDPOINT": "https://127.0.0.1:{tls}", "CLIENT_KEY": "{folder}/client.pem"},
    {
        "ENDPOINT": "https://127.0.0.1:{tls}",
        "CLIENT_CERTIFICATE": "{folder}/client.pem",
        "CLIENT_KEY": "{folder}/other.pem",
    },
]
ONLY_GRPC: list[tuple[dict[str, str], bool | None]] = [
    ({"COMPRESSION": "deflate"}, False),
    *(({"INSECURE": value}, False) for value in ("1", "yes", "junk", "0", "on")),
    *(({"HEADERS": value}, False) for value in ("x-bin=a", "a=%C3%BC", "grpc-timeout=1S", "a!=b")),
    ({"ENDPOINT": "https://127.0.0.1:{tls}", "CERTIFICATE": "{folder}"}, False),
    ({"ENDPOINT": "https://127.0.0.1:{tls}", "CLIENT_CERTIFICATE": "{folder}/client.pem"}, False),
    ({"ENDPOINT": "http://user:password@127.0.0.1:{port}"}, False),
    ({"ENDPOINT": "user@127.0.0.1:{port}"}, False),
    ({"ENDPOINT": "grpc://127.0.0.1:{port}"}, False),
    ({"ENDPOINT": "127.0.0.1:{port}", "INSECURE": "true"}, True),
    ({"ENDPOINT": "dns:127.0.0.1:{port}", "INSECURE": "true"}, True),
    ({"ENDPOINT": "ipv4:127.0.0.1:{port}", "INSECURE": "true"}, True),
    ({"ENDPOINT": "http://127.0.0.1:{port}/v1/logs"}, True),
    ({"ENDPOINT": "https://127.0.0.1:{port}", "PROTOCOL": ""}, None),
    # Without a scheme, it is TLS, and the Collector has none.
    ({"ENDPOINT": "127.0.0.1:{port}"}, None),
    (
        {
            "ENDPOINT": "https://127.0.0.1:{tls}",
            PROVIDER.format("GRPC"): "missing",
        },
        False,
    ),
    ({PROVIDER.format("GRPC"): "missing"}, True),
]
ONLY_HTTP: list[tuple[dict[str, str], bool | None]] = [
    ({"COMPRESSION": "deflate"}, True),
    ({"INSECURE": "junk"}, True),
    ({"HEADERS": "x-bin=a"}, True),
    ({"HEADERS": "a=%C3%BC"}, True),
    ({"ENDPOINT": "http://user:password@127.0.0.1:{port}"}, True),
    ({"LOGS_ENDPOINT": "http://127.0.0.1:{port}/v1/logs?a=b"}, True),
    ({"LOGS_ENDPOINT": "http://127.0.0.1:{port}"}, True),
    ({"LOGS_ENDPOINT": "http://127.0.0.1:{port}/v1/logs#a"}, False),
    ({"ENDPOINT": "127.0.0.1:{port}"}, False),
    ({"ENDPOINT": "https://127.0.0.1:{tls}", "REQUESTS_CA_BUNDLE": "{folder}/ca.pem"}, True),
    ({"ENDPOINT": "https://127.0.0.1:{tls}", "CURL_CA_BUNDLE": "/missing"}, False),
    ({"ENDPOINT": "https://127.0.0.1:{tls}"}, None),
    ({"ENDPOINT": "https://127.0.0.1:{port}"}, None),
    ({"ENDPOINT": "http://collector.invalid", "ALL_PROXY": "socks4://127.0.0.1:1"}, None),
    ({"ENDPOINT": "http://collector.invalid", "HTTP_PROXY": "http://:1"}, False),
    ({"ENDPOINT": "http://collector.invalid", "http_proxy": "ftp://proxy"}, False),
    ({"ENDPOINT": "http://collector.invalid", "http_proxy": "http://127.0.0.1:{port}"}, True),
    ({"ENDPOINT": "http://collector.invalid", "http_proxy": "http://127.0.0.1:{closed}"}, None),
    ({PROVIDER.format("HTTP"): "missing"}, False),
]
ENVIRONMENTS: list[tuple[str, dict[str, str], bool | None]] = [
    (protocol, environ, expected)
    for protocol, own in zip(PROTOCOLS, (ONLY_HTTP, ONLY_GRPC), strict=True)
    for environ, expected in (
        *((environ, True) for environ in GOOD),
        *((environ, False) for environ in BAD),
        *own,
    )
]


class Collectors(NamedTuple):
    """The values of a protocol's Collectors, by their placeholders, and their requests."""

    values: dict[str, str]
    standins: tuple[HTTPStandin | GRPCStandin, ...]


@pytest.fixture(scope="module")
def collectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Collectors]]:
    """A Collector in plain text and one with TLS, for each protocol."""
    folder = tmp_path_factory.mktemp("files")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    for name in ("client", "other"):
        pair = authority.issue_cert(f"{name}.example").private_key_and_cert_chain_pem
        pair.write_to_path(folder / f"{name}.pem")
    (folder / "junk.pem").write_text("junk")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.configure_cert(context)
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())]
    )
    with (
        HTTPStandin(Response()) as http,
        HTTPStandin(Response(), tls=context) as http_tls,
        GRPCStandin() as plain,
        GRPCStandin(credentials=credentials) as tls,
    ):
        pairs: tuple[tuple[HTTPStandin | GRPCStandin, ...], ...] = ((http, http_tls), (plain, tls))
        yield {
            protocol: Collectors(
                {
                    "port": pair[0].endpoint.rpartition(":")[2],
                    "tls": pair[1].endpoint.rpartition(":")[2],
                    "closed": str(free_port()),
                    "folder": str(folder),
                },
                pair,
            )
            for protocol, pair in zip(PROTOCOLS, pairs, strict=True)
        }


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("protocol", "environ", "expected"),
    ENVIRONMENTS,
    ids=[f"{protocol} {environ}" for protocol, environ, _ in ENVIRONMENTS],
)
def test_agreement(
    *,
    protocol: str,
    environ: dict[str, str],
    expected: bool | None,
    collectors: dict[str, Collectors],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a healthy Collector, they agree; plain status on what the variables alone decide."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)
    values, standins = collectors[protocol]
    base = {"PROTOCOL": protocol, "ENDPOINT": "http://127.0.0.1:{port}"}
    if expected is None:
        # These fail only at their end.
        base["TIMEOUT"] = "2"
    for name, value in (base | environ).items():
        is_short = name.isupper() and not name.startswith("OTEL_") and "_PROXY" not in name
        is_short = is_short and "_CA_BUNDLE" not in name
        monkeypatch.setenv(f"{PREFIX}{name}" if is_short else name, value.format(**values))
    before = sum(len(standin.requests) for standin in standins)

    main(["status", "--check", "--json"])
    status = json.loads(capsys.readouterr().out)
    emitted = main(["emit", "--oneshot", "--tbot-version=18.3.0"])
    message = capsys.readouterr().err

    accepted = status["check"]["result"] == "accepted"
    assert (emitted == 0, "tbot-otel: delivered to " in message) == (accepted, accepted), message
    arrived = sum(len(standin.requests) for standin in standins) - before
    assert arrived == (2 if accepted else 0)
    if expected is None:
        assert (status["would_send"], accepted) == (True, False)
    else:
        assert (status["would_send"], accepted) == (expected, expected), status
    if expected is False:
        assert status["reason"].partition(":")[0] == status["variable"]
        assert status["variable"] in os.environ
        assert f": {status['reason']}\n" in message


def test_enough_environments() -> None:
    """The table is as long as it should be, and has no environment twice."""
    assert len({(protocol, str(environ)) for protocol, environ, _ in ENVIRONMENTS}) >= 120
