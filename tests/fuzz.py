"""Generate inputs by coverage, until one breaks a property.

``nox --session fuzz -- TARGET [CORPUS] [-max_total_time=SECONDS]``: TARGET is bot_config, connect
or report. A folder CORPUS keeps the inputs. libFuzzer (https://llvm.org/docs/LibFuzzer.html) has
more options. An input that fails is written to the working directory, and repeated by its name in
place of CORPUS.
"""

import gzip
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tbot_otel", "connectrpc", "protobuf"]):
    from support.core import call_application
    from support.messages import JSON, MARKER, PROTO
    from support.properties import check_bot_config, check_reply, check_report_file

from support.otlp_files import compress_zstd, make_start, to_line
from support.paths import ROOT
from support.request_cases import ACCEPTED_CASES, REFUSED_CASES
from tbot_otel.connect import PATH

EXAMPLES = ROOT / "examples"
CONTENT_TYPES = (PROTO, JSON, "application/grpc-web+proto", "application/connect+proto", "")
ENCODINGS = ("", "gzip", "identity", "br")
METHODS = ("POST", "GET", "PUT", MARKER)
WORDS = {
    "bot_config": (
        *("version: v1", "version: v2", "outputs:", "services:", "destinations:", "oneshot: true"),
        *("onboarding:", "join_method:", "join_uri: tbot+auth+iam://", "type: database", "app:"),
        *("configs:", "ssh_host_cert", "<<: *a", "&a", "!!merge", "!!bool", MARKER),
    ),
    "connect": ("distinctId", "start", "runMode", "RUN_MODE_DAEMON", "destinationsOther", MARKER),
    "report": (
        *("resourceLogs", "scopeLogs", "logRecords", "eventName", "tbot.start", "timeUnixNano"),
        *("session.id", "stringValue", "intValue", "resourceSpans", "os.type", MARKER),
    ),
}
FOLDER = Path(tempfile.mkdtemp(prefix="tbot-otel-fuzz-"))


def test_bot_config(data: bytes) -> None:
    """Read a tbot.yaml."""
    path = FOLDER / "tbot.yaml"
    path.write_bytes(data)
    check_bot_config(path)


def test_connect(data: bytes) -> None:
    """Call the application. The first byte chooses the headers, unless it is 0."""
    head, body = data[:1] or b"\0", data[1:]
    content_type = CONTENT_TYPES[head[0] % 5]
    encoding = ENCODINGS[head[0] // 5 % 4]
    method = METHODS[max(0, head[0] // 20 - 9)]
    bodies = [body] if encoding != "gzip" else [body, gzip.compress(body)]
    for sent in bodies:
        reply = call_application(
            sent, content_type, method=method, path=PATH, HTTP_CONTENT_ENCODING=encoding
        )
        check_reply(reply)


def test_report(data: bytes) -> None:
    """Read a file of the Collector. The first byte chooses how it is compressed."""
    head, content = data[:1], data[1:]
    if head == b"g":
        content = gzip.compress(content)
    elif head == b"z":
        content = compress_zstd(content)
    elif head == b"f":
        frames = map(compress_zstd, content.split(b"\n"))
        content = b"".join(len(frame).to_bytes(4) + frame for frame in frames)
    path = FOLDER / "starts.json"
    path.write_bytes(content)
    check_report_file(path)


def seeds(target: str) -> Iterable[bytes]:
    """Return inputs to begin with."""
    if target == "bot_config":
        return [path.read_bytes() for path in EXAMPLES.glob("**/tbot.yaml")]
    if target == "connect":
        cases = [case.values[:2] for case in (*ACCEPTED_CASES, *REFUSED_CASES)]
        return [
            bytes([int(JSON in str(content_type).lower())]) + bytes(body)
            for body, content_type in cases
            if isinstance(body, bytes)
        ]
    line = to_line(make_start(), make_start({"version": MARKER}, host=None)).encode()
    compressed = (gzip.compress(line), compress_zstd(line))
    return [*(head + line for head in (b"j", b"g", b"z", b"f")), *(b"j" + it for it in compressed)]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "bot_config": test_bot_config,
    "connect": test_connect,
    "report": test_report,
}


def main() -> None:
    """Run libFuzzer, which ends the process."""
    program, target, *options = sys.argv
    dictionary = FOLDER / "words"
    dictionary.write_text("".join(f'"{word}"\n' for word in WORDS[target]))
    corpus = FOLDER / "seeds"
    corpus.mkdir()
    for number, seed in enumerate(seeds(target)):
        (corpus / str(number)).write_bytes(seed)
    folders = [] if any(Path(word).is_file() for word in options) else [str(corpus)]
    # The first folder is the one that libFuzzer writes to.
    words = [program, f"-dict={dictionary}", "-max_len=4096", *options, *folders]
    atheris.Setup(words, TARGETS[target])
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
