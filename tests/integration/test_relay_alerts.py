"""The alert rules of the relay's examples, and the metrics that they name."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support.processes import WAIT_SECONDS, free_port, running_server, wait_until
from support.relay import running_relay
from support.relay_examples import EXAMPLES
from support.standins import HTTPStandin, Response
from tbot_otel.connect import PATH

ALERTS = EXAMPLES / "alerts.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool, of Prometheus"
)


def run_promtool(*words: str) -> None:
    """Run promtool. It must find no problem."""
    done = subprocess.run(
        ["promtool", *words], capture_output=True, text=True, timeout=5 * WAIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_rules_are_valid() -> None:
    """Prometheus accepts the rules."""
    run_promtool("check", "rules", "--lint-fatal", str(ALERTS))


CALLS = "tbot_otel_relay_calls_total"
EXPORTS = "tbot_otel_relay_export_duration_seconds_count"
BUCKETS = "tbot_otel_relay_call_duration_seconds_bucket"
HOURS = 60
"""A sample each minute."""
NOON, NIGHT = 36 * HOURS, 26 * HOURS
"""When problems begin: on the second day, so that there is a day before."""
LASTS = HOURS
HELD = 2
"""How long the Collector's exporter repeats the last value of a relay that is gone."""


class Minute(NamedTuple):
    """A minute of a relay."""

    ready: int | None = 1
    """None if there is no sample."""
    calls: int = 60
    failed: float = 0.0
    """The share of calls that are not acknowledged."""
    refused: float = 0.0
    """The share of calls that overload refuses."""
    slow: float = 0.0
    """The share of acknowledged calls that take more than a second."""
    unknown: float = 0.0
    """The share of calls with an unknown secret."""
    restarts: bool = False


class Scenario(NamedTuple):
    """A problem of some relays, and what has to fire."""

    alerts: set[str]
    minutes: int
    """How long after its beginning they fire."""
    problem: Minute
    relays: int = 3
    begin: int = NOON
    lasts: int = LASTS
    is_long: bool = False
    """Whether the day before matters, from its night on. These follow each other in one test."""

    @property
    def first(self) -> int:
        """The first minute that has samples."""
        return self.begin - (30 if self.is_long else 1) * HOURS

    @property
    def last(self) -> int:
        """The last minute that has samples."""
        return self.begin + self.lasts + 20


OUTAGE = Minute(ready=0, calls=0)
GONE = Minute(ready=None, calls=0)
SCENARIOS = {
    "counter reset": Scenario(set(), 0, Minute(restarts=True), lasts=1),
    "blip": Scenario(set(), 0, Minute(ready=0, failed=1.0), lasts=1),
    "blip of metrics": Scenario(set(), 0, GONE, lasts=1),
    "errors of callers": Scenario(set(), 0, Minute(failed=0.005, refused=0.005, unknown=0.3)),
    "outage by day": Scenario({"TbotRelayOutage"}, 3, OUTAGE, is_long=True),
    "outage by night": Scenario({"TbotRelayOutage"}, 3, OUTAGE, begin=NIGHT),
    "outage with metrics": Scenario({"TbotRelayAbsent"}, 3 + HELD, GONE),
    "one Collector": Scenario({"TbotRelayNotReady"}, 6, OUTAGE, relays=1),
    "one Collector by night": Scenario({"TbotRelayNotReady"}, 6, OUTAGE, relays=1, begin=NIGHT),
    "one relay gone": Scenario({"TbotRelayGone"}, 6, GONE, relays=1),
    "one relay gone by night": Scenario({"TbotRelayGone"}, 6, GONE, relays=1, begin=NIGHT),
    "proxy": Scenario(
        {"TbotRelayNoCalls"}, 20, Minute(calls=0), begin=NOON + 3 * HOURS, is_long=True
    ),
    "slow": Scenario({"TbotRelaySlow"}, 6, Minute(slow=0.1)),
    "failing": Scenario({"TbotRelayExportsFail", "TbotRelayUnavailable"}, 6, Minute(failed=0.2)),
    "overload": Scenario({"TbotRelayRefuses"}, 6, Minute(refused=0.1)),
    "old secret": Scenario({"TbotRelayUnknownSecret"}, 16, Minute(unknown=0.8)),
}


def relay_series(number: int, scenarios: Sequence[Scenario]) -> dict[str, list[str]]:
    """The samples of a relay: calls by day and none by night, and the scenarios' problems."""
    totals: Counter[str] = Counter()
    series: dict[str, list[str]] = {}
    for minute in range(scenarios[0].first, scenarios[-1].last):
        scenario = next(scenario for scenario in scenarios if minute < scenario.last)
        age = minute - scenario.begin
        state = Minute()
        if number < scenario.relays and 0 <= age < scenario.lasts:
            state = scenario.problem
        if state.restarts:
            totals = Counter(dict.fromkeys(totals, 0))
        calls = state.calls if 8 <= minute // HOURS % 24 < 20 else 0
        counts = {
            (200, ""): calls * (1 - state.failed - state.refused - state.unknown),
            (400, "400"): calls / 10,
            (429, "too_large"): calls / 10,
            (429, "too_many_calls"): calls * state.refused,
            (503, "unavailable"): calls * state.failed,
            (404, "unknown_secret"): calls * state.unknown,
        }
        accepted = counts[200, ""]
        if state.ready is not None:
            totals["tbot_otel_relay_ready"] = state.ready
        for (status, reason), count in counts.items():
            error = f',error_type="{reason}"' if reason else ""
            totals[f'{CALLS}{{http_response_status_code="{status}"{error}}}'] += count  # type: ignore[assignment]  # a float
        totals[EXPORTS] += accepted  # type: ignore[assignment]  # as above
        totals[EXPORTS + '{error_type="unavailable"}'] += calls * state.failed  # type: ignore[assignment]  # as above
        for bound, share in (("0.5", 1 - state.slow), ("2", 1.0), ("+Inf", 1.0)):
            name = f'{BUCKETS}{{http_response_status_code="200",le="{bound}"}}'
            totals[name] += accepted * share  # type: ignore[assignment]  # as above
            # Calls that are not acknowledged may take long.
            slow = name.replace("200", "503")
            totals[slow] += calls * state.failed * (bound == "+Inf")  # type: ignore[assignment]  # as above
        for name, total in totals.items():
            sample = (
                f"{total:g}" if state.ready is not None or 0 <= age < HELD < scenario.lasts else "_"
            )
            series.setdefault(name, []).append(sample)
    return series


def with_instance(name: str, number: int) -> str:
    """The name of a series with the label of its relay."""
    metric, _, labels = name.removesuffix("}").partition("{")
    return f'{metric}{{instance="{number}",{labels}}}'.replace(",}", "}")


def scenario_test(*scenarios: Scenario) -> dict[str, Any]:
    """The test of scenarios that follow each other, for promtool."""
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    first = checked = scenarios[0].first
    checks: list[dict[str, Any]] = []

    def check(expression: str, minute: int, samples: list[dict[str, Any]]) -> None:
        eval_time = f"{minute - first}m"
        checks.append({"expr": expression, "eval_time": eval_time, "exp_samples": samples})

    def check_since(since: int, minute: int, samples: list[dict[str, Any]]) -> None:
        ever = f'count_over_time(ALERTS{{alertstate="firing"}}[{minute - since}m])'
        check(f"count by (alertname) ({ever})", minute, samples)

    for scenario in scenarios:
        expected = [
            {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(scenario.alerts)
        ]
        end = scenario.begin + scenario.lasts
        check_since(checked, scenario.begin, [])
        if expected:
            check(firing, scenario.begin + scenario.minutes, expected)
            check(firing, end - 1, expected)
            check(firing, end + 10, [])
        checked = scenario.last - 1
        check_since(scenario.begin, checked, expected)
    return {
        "interval": "1m",
        "input_series": [
            {"series": with_instance(name, number), "values": " ".join(values)}
            for number in range(3)
            for name, values in relay_series(number, scenarios).items()
        ],
        "promql_expr_test": checks,
    }


@needs_promtool
def test_alerts(tmp_path: Path) -> None:
    """Each problem fires its alert in time and for as long as it lasts, and no other alert."""
    idle = {
        "interval": "1m",
        "input_series": [
            {"series": f'tbot_otel_relay_ready{{instance="{number}"}}', "values": "1x120"}
            for number in range(3)
        ],
        "promql_expr_test": [
            {
                "expr": 'count_over_time(ALERTS{alertstate="firing"}[2h])',
                "eval_time": "120m",
                "exp_samples": [],
            }
        ],
    }
    long = [scenario for scenario in SCENARIOS.values() if scenario.is_long]
    short = [scenario for scenario in SCENARIOS.values() if not scenario.is_long]
    tests = [idle, scenario_test(*long), *map(scenario_test, short)]
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": tests}))
    run_promtool("test", "rules", str(file))


def test_every_alert_is_tested() -> None:
    """Each alert has a scenario above."""
    tested = set().union(*(scenario.alerts for scenario in SCENARIOS.values()))
    assert {rule["alert"] for rule in RULES} == tested


class Selector(NamedTuple):
    """A metric and its labels, in a rule: with their operators and values."""

    metric: str
    labels: list[tuple[str, str, str]]

    def matches(self, series: "Selector") -> bool:
        """Whether a series is selected, or has the label that would exclude it."""
        values = {name: value for name, _, value in series.labels}
        return self.metric == series.metric and all(
            name in values and (operator == "!=" or re.fullmatch(value, values[name]))
            for name, operator, value in self.labels
        )


def parse_selectors(text: str) -> list[Selector]:
    """The metrics of the relay in a text."""
    return [
        Selector(metric, re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', labels))
        for metric, labels in re.findall(r"\b(tbot_otel_\w+)(?:\{(.*?)\})?", text)
    ]


def test_metrics_exist(official_binary: Path, tmp_path: Path) -> None:
    """The Collector's exporter `prometheus` exposes each metric and label that a rule names."""
    port, prometheus = free_port(), free_port()
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"localhost:{port}"}}}},
        "exporters": {"prometheus": {"endpoint": f"localhost:{prometheus}"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["prometheus"]}},
        },
    }
    file = tmp_path / "collector.yaml"
    file.write_text(json.dumps(config))
    command = [str(official_binary), "--config", str(file)]
    rules = "\n".join(rule["expr"] for rule in RULES)

    def missing() -> list[Selector | str]:
        url = f"http://localhost:{prometheus}/metrics"
        with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as response:
            text = response.read().decode()
        series = parse_selectors("\n".join(re.findall("^[^#].*$", text, re.MULTILINE)))
        labels = {name for one in series for name, _, _ in one.labels}
        selectors = parse_selectors(rules)
        return [
            *(one for one in selectors if not any(map(one.matches, series))),
            *(name for name in re.findall(r"by \((\w+)\)", rules) if name not in labels),
        ]

    with (
        running_server(command, tmp_path / "collector.log", port, prometheus),
        HTTPStandin(Response(404), Response()) as logs,
        running_relay(
            tmp_path,
            f"http://localhost:{port}",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{logs.endpoint}/v1/logs",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_METRIC_EXPORT_INTERVAL="200",
        ) as relay,
    ):
        assert relay.report() == (503, "unavailable")
        assert relay.report() == (200, "")
        assert relay.post(bytes(5000))[:2] == (429, "resource_exhausted")
        assert relay.post(b"", path=f"/unknown{PATH}")[0] == 404
        # The first exports may lack what comes later.
        wait_until(lambda: missing() == [])
