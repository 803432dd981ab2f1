"""Writes starts as the official Collector's file exporter does."""

import json
import random
import sys
import uuid
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from tbot_otel.registry import SCHEMA_URL, START

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DAY_NS = 86400 * 10**9
FIRST_DAY_NS = (date(2026, 1, 5) - date(1970, 1, 1)).days * DAY_NS


def make_start(
    values: Mapping[str, str | int] | None = None,
    *,
    session_id: str | None = None,
    time_ns: int = FIRST_DAY_NS,
    host: tuple[str, str] | None = ("linux", "amd64"),
) -> dict[str, Any]:
    """The ``resourceLogs`` of a start, as the official Collector writes them.

    Args:
        values: Its attributes, without ``tbot.``, where they differ from the default ones.
        session_id: Its session id; by default a new one.
        time_ns: Its time.
        host: Its operating system and architecture; None if a relay received it.
    """
    names = ("os.type", "host.arch") if host else ()
    resource = {
        "service.name": "tbot",
        "session.id": session_id or str(uuid.uuid4()),
        **dict(zip(names, host or (), strict=True)),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.2",
    }
    default: dict[str, str | int] = {
        "run_mode": "daemon",
        "version": "18.3.0",
        "join_type": "token",
    }
    counts = {f"destinations_{kind}": 0 for kind in ("other", "database", "kubernetes")}
    given = {**default, **counts, "destinations_application": 0, **(values or {})}
    record = {
        "timeUnixNano": str(time_ns),
        "observedTimeUnixNano": str(time_ns),
        "severityNumber": 9,
        "severityText": "INFO",
        "body": {},
        "attributes": to_attributes({f"tbot.{name}": value for name, value in given.items()}),
        "eventName": START.name,
    }
    scope = {"name": "tbot_otel", "version": "0.1.0"}
    return {
        "resource": {"attributes": to_attributes(resource)},
        "scopeLogs": [{"scope": scope, "logRecords": [record], "schemaUrl": SCHEMA_URL}],
        "schemaUrl": SCHEMA_URL,
    }


def record_of(start: dict[str, Any]) -> dict[str, Any]:
    """The record in the ``resourceLogs`` of a start."""
    record: dict[str, Any] = start["scopeLogs"][0]["logRecords"][0]
    return record


def to_attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    """OTLP/JSON attributes, as the official Collector writes them."""
    return [
        {
            "key": key,
            "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)},
        }
        for key, value in values.items()
    ]


def to_line(*starts: dict[str, Any]) -> str:
    """The line of an export."""
    line = json.dumps({"resourceLogs": starts}, separators=(",", ":"), ensure_ascii=False)
    return f"{line}\n"


def to_message(*starts: dict[str, Any]) -> bytes:
    """The message of an export, after its length, as ``format: proto`` has it."""
    data = ParseDict({"resource_logs": starts}, LogsData()).SerializeToString()
    return len(data).to_bytes(4) + data


def to_protobuf(lines: Iterable[str]) -> bytes:
    """The messages of exports in JSON."""
    return b"".join(to_message(*json.loads(line)["resourceLogs"]) for line in lines)


def compress_zstd(data: bytes) -> bytes:
    """A Zstandard frame."""
    return zstd.compress(data)


class Shape(NamedTuple):
    """The shape of generated data.

    Attributes:
        records: How many records.
        starts_per_line: How many of them are in an export.
        kinds: How many distinct sets of attributes. The second is half as frequent as the first,
            the third a third as frequent, and so on.
        days: Over how many days.
        duplicate: The share of records that repeat the one before.
    """

    records: int
    starts_per_line: int = 50
    kinds: int = 2_000
    days: int = 90
    duplicate: float = 0.01


def write_starts(path: Path, shape: Shape) -> None:
    """Write generated starts. A tenth of the kinds came through a relay."""
    chance = random.Random(1)  # noqa: S311 - not a secret
    kinds = [_random_kind(chance) for _ in range(shape.kinds)]
    weights = [1 / rank for rank in range(1, shape.kinds + 1)]
    start = ""
    with path.open("w") as file:
        for written in range(0, shape.records, shape.starts_per_line):
            count = min(shape.starts_per_line, shape.records - written)
            day = written * shape.days // shape.records
            starts = []
            for kind in chance.choices(kinds, weights, k=count):
                if not start or chance.random() >= shape.duplicate:
                    bits = chance.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62)
                    session_id = str(uuid.UUID(int=bits | 0x4 << 76 | 0x2 << 62))
                    time_ns = FIRST_DAY_NS + day * DAY_NS + chance.randrange(DAY_NS)
                    start = kind.replace("SESSION", session_id).replace("TIME", str(time_ns))
                starts.append(start)
            file.write(f'{{"resourceLogs":[{",".join(starts)}]}}\n')


def _random_kind(chance: random.Random) -> str:
    hosts = [("linux", "amd64"), ("linux", "arm64"), ("darwin", "arm64"), ("windows", "amd64")]
    helper: dict[str, str | int] = {}
    if chance.random() < 0.3:
        helper = {
            "helper": chance.choice(("gha:teleport-actions/auth", "gha:teleport-actions/auth-k8s")),
            "helper_version": f"2.{chance.randrange(3)}.{chance.randrange(5)}",
        }
    counts = {
        f"destinations_{kind}": chance.choice((0, 0, 0, 1, 1, 2, 5))
        for kind in ("other", "database", "kubernetes", "application")
    }
    start = make_start(
        {
            "run_mode": chance.choice(("one-shot", "daemon")),
            "version": f"{chance.randrange(16, 19)}.{chance.randrange(6)}.{chance.randrange(4)}",
            "join_type": chance.choice(("github", "iam", "kubernetes", "token", "tpm", "")),
            **helper,
            **counts,
        },
        session_id="SESSION",
        host=None if chance.random() < 0.1 else chance.choice(hosts),
    )
    record_of(start).update(timeUnixNano="TIME", observedTimeUnixNano="TIME")
    return json.dumps(start, separators=(",", ":"))
