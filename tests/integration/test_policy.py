"""`preview` and `emit` ask the policy, and name the attributes that it changed or left out."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.cases import FULL_ATTRIBUTES, OTHER
from support.otlp import attribute_values
from support.processes import install_tbot_script
from support.standins import HTTPStandin, Response
from tbot_otel.cli import main
from tbot_otel.policy import Reason

# What tbot prints, its configuration has, and its helper says; by the attribute.
GIVEN = {
    "tbot.run_mode": "daemon",
    **{
        name: str(FULL_ATTRIBUTES[name])
        for name in ("tbot.version", "tbot.join_type", "tbot.helper", "tbot.helper_version")
    },
}
COUNTS = {name: value for name, value in FULL_ATTRIBUTES.items() if isinstance(value, int)}
NO_VERSION = "`tbot version` printed no version; --tbot-version gives it"
ALLOWABLE = f"{Reason.UNKNOWN_VALUE.value}; --allow-helper lets it leave"
# The value that differs, the attributes that leave otherwise, and a line for each that changed.
CASES: dict[str, tuple[dict[str, str], dict[str, str | None], dict[str, str]]] = {
    "nothing changed": ({}, {}, {}),
    "another mode": ({"tbot.run_mode": "one-shot"}, {"tbot.run_mode": "one-shot"}, {}),
    "no version": ({"tbot.version": ""}, {"tbot.version": OTHER}, {"tbot.version": NO_VERSION}),
    "unknown version": (
        {"tbot.version": "18.3"},
        {"tbot.version": OTHER},
        {"tbot.version": Reason.UNKNOWN_VALUE.value},
    ),
    "version of a build": (
        {"tbot.version": "18.0.0-dev.someone.1+x"},
        {"tbot.version": "18.0.0-dev"},
        {"tbot.version": Reason.CUT_OFF.value},
    ),
    "unknown method": (
        {"tbot.join_type": "delegated"},
        {"tbot.join_type": OTHER},
        {"tbot.join_type": Reason.UNKNOWN_VALUE.value},
    ),
    "no helper": (
        {"tbot.helper": ""},
        {"tbot.helper": None, "tbot.helper_version": None},
        {"tbot.helper_version": Reason.NO_HELPER.value},
    ),
    **{
        f"helper {helper!r}": (
            {"tbot.helper": helper},
            {"tbot.helper": OTHER, "tbot.helper_version": None},
            {"tbot.helper": problem, "tbot.helper_version": Reason.UNKNOWN_HELPER.value},
        )
        for helper, problem in (
            ("terraform", ALLOWABLE),
            ("web01.example.com", Reason.UNKNOWN_VALUE.value),
            ("x\x1b[31m\n$(x) 'y'", Reason.UNKNOWN_VALUE.value),
        )
    },
    "version of a helper": (
        {"tbot.helper_version": "1.2.3.4"},
        {"tbot.helper_version": None},
        {"tbot.helper_version": Reason.DOES_NOT_FIT.value},
    ),
}


def without_session_and_times(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without its session and its times, which are new at every run."""
    (logs,) = request["resourceLogs"]
    (record,) = logs["scopeLogs"][0]["logRecords"]
    resource = logs["resource"]
    resource["attributes"] = [
        item for item in resource["attributes"] if item["key"] != "session.id"
    ]
    assert record.pop("timeUnixNano") == record.pop("observedTimeUnixNano")
    return request


@pytest.fixture(scope="module")
def standin() -> Iterator[HTTPStandin]:
    """A stand-in for a Collector that accepts every export."""
    with HTTPStandin(Response()) as standin:
        yield standin


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("name", CASES)
def test_commands(
    name: str,
    standin: HTTPStandin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Preview prints the record that the policy permits, and emit sends the same record."""
    different, changed, lines = CASES[name]
    given = GIVEN | different
    expected = {**FULL_ATTRIBUTES, **changed}
    config = tmp_path / "tbot.yaml"
    config.write_text(f"onboarding: {{join_method: {json.dumps(given['tbot.join_type'])}}}")
    options = [
        f"--{name.removeprefix('tbot.').replace('_', '-')}={n}" for name, n in COUNTS.items()
    ]
    mode = f"--{given['tbot.run_mode'].replace('-', '')}"
    words = ["--config", str(config), mode, *options]
    version = given["tbot.version"]
    line = f"Teleport v{version} git:v18.3.0-0-gabcdef1 go1.24.9" if version else ""
    monkeypatch.setenv("PATH", install_tbot_script(tmp_path, f"printf '%s\\n' {shlex.quote(line)}"))
    monkeypatch.setenv("_TBOT_TELEMETRY_HELPER", given["tbot.helper"])
    monkeypatch.setenv("_TBOT_TELEMETRY_HELPER_VERSION", given["tbot.helper_version"])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", standin.endpoint)

    assert main(["preview", "--json", *words]) == 0
    printed = capsys.readouterr()
    previewed = json.loads(printed.out)
    (record,) = previewed["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["eventName"] == "tbot.start"
    assert attribute_values(record["attributes"]) == {
        name: value for name, value in expected.items() if value is not None
    }
    changes = [f"tbot-otel: {attribute}: {problem}" for attribute, problem in lines.items()]
    assert printed.err.splitlines() == changes

    assert main(["emit", *words]) == 0
    assert capsys.readouterr().err.splitlines()[:-1] == changes
    sent = MessageToDict(
        ExportLogsServiceRequest.FromString(standin.requests[-1].body),
        use_integers_for_enums=True,
    )
    assert without_session_and_times(sent) == without_session_and_times(previewed)
