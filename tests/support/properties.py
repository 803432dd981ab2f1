"""What holds for every input. Hypothesis and the fuzzer (``tests/fuzz.py``) generate the inputs."""

import inspect
import re
import uuid
from pathlib import Path
from types import ModuleType

from support.core import Reply
from support.messages import NOW
from tbot_otel.cli import _bot_config
from tbot_otel.cli._bot_config import BotConfigError
from tbot_otel.connect import Report
from tbot_otel.policy import Permitted, decide
from tbot_otel.registry import RESOURCE, START
from tbot_otel.report import inputs, reader
from tbot_otel.report.document import NOT_REPORTED, REASONS
from tbot_otel.report.inputs import ReportError, find_files
from tbot_otel.report.parse import COLUMNS, Parser
from tbot_otel.report.reader import Block, read_blocks

_HELPER = "acme-deploy"
_HOST = {attribute.name: attribute for attribute in RESOURCE}


def check_timestamp(report: Report) -> None:
    """Check that a report has the time of receipt, less a part of a minute."""
    assert NOW - 60 * 10**9 < report.timestamp <= NOW


def check_reply(reply: Reply) -> None:
    """Check that policy permits the whole report, or that the reply is an error."""
    assert reply.status in (200, 400, 404, 405, 415, 429, 501)
    assert len(reply.reports) == (reply.status == 200)
    assert bool(reply.code) == bool(reply.message) == (reply.status in (400, 429, 501))
    for report in reply.reports:
        session_id = uuid.UUID(report.session_id)
        assert (session_id.version, str(session_id)) == (4, report.session_id)
        check_timestamp(report)
        decision = decide(START.name, report.permitted.attributes)
        assert isinstance(decision, Permitted)
        assert not decision.changes
        assert decision.attributes == report.permitted.attributes


def check_message(error: Exception, path: Path, *modules: ModuleType) -> None:
    """Check that an error is one line with the path of the file and words of the modules' own."""
    message = str(error)
    assert message.splitlines() == [message]
    assert message.startswith(f"{path}:")
    problem = re.sub("^:[0-9]+:", "", message.removeprefix(str(path)))
    known = {
        word
        for module in modules
        for text in (
            inspect.getsource(module),
            *(str(value) for name, value in vars(module).items() if name.isupper()),
        )
        for word in re.findall(r"\w+", text)
    }
    assert {*re.findall(r"\w+", problem)} <= known


def check_bot_config(path: Path) -> None:
    """Check that a file is read, or refused without a word of its own."""
    try:
        attributes = _bot_config.read(path)
    except BotConfigError as error:
        check_message(error, path, _bot_config)
        return
    assert attributes.pop("tbot.run_mode") in ("one-shot", "daemon")
    assert isinstance(attributes.pop("tbot.join_type"), str)
    assert list(attributes) == [
        "tbot.destinations_other",
        "tbot.destinations_application",
        "tbot.destinations_database",
        "tbot.destinations_kubernetes",
    ]
    assert all(type(count) is int and count >= 0 for count in attributes.values())


def check_report_file(path: Path) -> None:
    """Check that the report reads a file, with permitted values alone, or refuses it."""
    parser = Parser(0, 10**6, (_HELPER,))
    try:
        for file in find_files([str(path)]):
            for block in read_blocks(file):
                check_chunk(parser, block)
    except ReportError as error:
        check_message(error, path, inputs, reader)


def check_chunk(parser: Parser, block: Block) -> None:
    """Check that a block is parsed, with permitted values alone."""
    chunk = parser.parse(block.content, is_protobuf=block.is_protobuf)
    starts = len(chunk.days)
    assert (len(chunk.session_ids), len(chunk.indexes)) == (16 * starts, starts)
    assert chunk.read == starts + chunk.refused.total()
    assert chunk.refused.keys() <= REASONS.keys()
    assert (chunk.unreadable > 0) == (chunk.first_unreadable is not None)
    assert all(0 <= day <= 10**6 for day in chunk.days)
    assert all(0 <= index < len(chunk.values) for index in chunk.indexes)
    for values in chunk.values:
        named = dict(zip(COLUMNS, values, strict=True))
        for column, name in (("os_type", "os.type"), ("host_arch", "host.arch")):
            value = named.pop(column)
            assert value == NOT_REPORTED or value == _HOST[name].admit(value)
        given = {f"tbot.{column}": value for column, value in named.items()}
        decision = decide(START.name, given, (_HELPER,))
        assert isinstance(decision, Permitted)
        assert not decision.changes
