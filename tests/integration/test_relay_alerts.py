"""The alert rules of the relay's examples, and the metrics that they name."""

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support.messages import new_session_id
from support.processes import WAIT_SECONDS, free_port, running_server, wait_until
from support.relay import running_relay
from support.relay_examples import EXAMPLES

ALERTS = EXAMPLES / "alerts.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool, of Prometheus"
)


def run_promtool(*words: str) -> None:
    """Run promtool. It must find no problem."""
    done = subprocess.run(
        ["promtool", *words], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_rules_are_valid() -> None:
    """Prometheus accepts the rules."""
    run_promtool("check", "rules", "--lint-fatal", str(ALERTS))


CALLS = "tbot_otel_relay_calls_total"
EXPORTS = "tbot_otel_relay_export_duration_seconds_count"
BUCKETS = "tbot_otel_relay_call_duration_seconds_bucket"
# The counts of a minute: of a healthy relay, and those that differ while an alert fires.
HEALTHY = {
    "tbot_otel_relay_queue_size": 0,
    CALLS + '{http_response_status_code="200"}': 1000,
    CALLS + '{http_response_status_code="400",error_type="invalid"}': 500,
    CALLS + '{http_response_status_code="429",error_type="too_large"}': 500,
    CALLS + '{http_response_status_code="429",error_type="too_many_calls"}': 5,
    CALLS + '{http_response_status_code="503",error_type="unavailable"}': 5,
    EXPORTS: 100,
    EXPORTS + '{error_type="unavailable"}': 5,
    BUCKETS + '{http_response_status_code="200",le="0.5"}': 995,
    BUCKETS + '{http_response_status_code="200",le="2"}': 1000,
    BUCKETS + '{http_response_status_code="200",le="+Inf"}': 1000,
    # Calls that were not acknowledged may take long.
    BUCKETS + '{http_response_status_code="503",le="0.5"}': 0,
    BUCKETS + '{http_response_status_code="503",le="2"}': 0,
    BUCKETS + '{http_response_status_code="503",le="+Inf"}': 500,
}
PROBLEMS: dict[str, dict[str, int | None]] = {
    "TbotRelayAbsent": dict.fromkeys(HEALTHY),
    "TbotRelayExportsFail": {EXPORTS + '{error_type="unavailable"}': 100},
    "TbotRelayUnavailable": {
        CALLS + '{http_response_status_code="503",error_type="unavailable"}': 50
    },
    "TbotRelayRefuses": {
        CALLS + '{http_response_status_code="429",error_type="too_many_calls"}': 50
    },
    "TbotRelaySlow": {BUCKETS + '{http_response_status_code="200",le="0.5"}': 900},
}


@needs_promtool
@pytest.mark.parametrize("alert", [None, *PROBLEMS])
def test_alerts(alert: str | None, tmp_path: Path) -> None:
    """Each alert fires because of its problem, and no other does."""
    counts = {**HEALTHY, **(PROBLEMS[alert] if alert else {})}
    series = [
        {"series": name, "values": f"0+{count}x30"}
        for name, count in counts.items()
        if count is not None
    ]
    firing = [
        'ALERTS{{alertstate="firing",alertname="{alert}",severity="{labels[severity]}"}}'.format(
            **rule
        )
        for rule in RULES
        if rule["alert"] == alert
    ]
    samples = [{"labels": labels, "value": 1} for labels in firing]
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "25m", "exp_samples": samples},
            # None fires at once.
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "4m", "exp_samples": []},
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": [test]}))
    run_promtool("test", "rules", str(file))


def test_every_alert_is_tested() -> None:
    """Each alert has a problem above."""
    assert [rule["alert"] for rule in RULES] == [*PROBLEMS]


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
        "exporters": {
            "debug": {},
            "prometheus": {"endpoint": f"localhost:{prometheus}"},
        },
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                "logs": {"receivers": ["otlp"], "exporters": ["debug"]},
                "metrics": {"receivers": ["otlp"], "exporters": ["prometheus"]},
            },
        },
    }
    file = tmp_path / "collector.yaml"
    file.write_text(json.dumps(config))
    command = [str(official_binary), "--config", str(file)]
    environ = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
    endpoint = f"http://localhost:{port}"
    refused = f"http://localhost:{free_port()}/v1/logs"
    (tmp_path / "failing").mkdir()

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
        running_relay(tmp_path, endpoint, **environ) as relay,
        running_relay(
            tmp_path / "failing", endpoint, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=refused, **environ
        ) as failing,
    ):
        assert relay.report(new_session_id()) == (200, "")
        assert relay.post(bytes(5000))[:2] == (429, "resource_exhausted")
        assert failing.report(new_session_id()) == (503, "unavailable")
        # The first exports may lack what comes later.
        wait_until(lambda: missing() == [])
