"""tbot.yaml: the attributes that are read from it, and one line for a file that is refused."""

import base64
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.fuzzing import examples
from support.properties import check_bot_config
from tbot_otel.cli import _bot_config
from tbot_otel.cli._bot_config import BotConfigError, like_yaml_v3

# A value in the files. No message may repeat it.
MARKER = "web01"


@pytest.fixture(
    autouse=True,
    params=[name for name in ("CSafeLoader", "SafeLoader") if hasattr(yaml, name)],
)
def loader(request: pytest.FixtureRequest) -> Iterator[None]:
    """Read with libyaml, and without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bot_config, "_Loader", like_yaml_v3(getattr(yaml, request.param)))
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each test overwrites."""
    return tmp_path_factory.mktemp("config") / "tbot.yaml"


class Counts(NamedTuple):
    """The expected attributes of a file."""

    other: int = 0
    database: int = 0
    kubernetes: int = 0
    application: int = 0
    join_type: str = ""
    run_mode: str = "daemon"


def v2(*types: str, key: str = "outputs") -> str:
    """A file of version 2 with entries of these types."""
    entries = "".join(f"- {{type: {kind}, destination: {{path: {MARKER}}}}}\n" for kind in types)
    return f"version: v2\n{key}:\n{entries}"


def v1(*destinations: str) -> str:
    """A file of version 1 with these destinations."""
    return "version: v1\ndestinations:\n" + "".join(f"- {entry}\n" for entry in destinations)


OTHERS = (
    *("identity", "kubernetes/v2", "kubernetes/argo-cd", "ssh_host", "spiffe-svid"),
    *("spiffe-workload-api", "ssh-multiplexer", "application-tunnel", "application-proxy"),
    *("database-tunnel", "workload-identity-x509", "workload-identity-jwt"),
    *("workload-identity-api", "workload-identity-aws-roles-anywhere", "example"),
)
TWO = {
    "application": Counts(application=2),
    "database": Counts(database=2),
    "kubernetes": Counts(kubernetes=2),
}
ONE_SHOT = Counts(run_mode="one-shot")
EACH = Counts(application=1, database=1, kubernetes=1)

TRUE_TEXTS = ("y", "Y", "yes", "Yes", "YES", "on", "On", "ON")
FALSE_TEXTS = ("n", "N", "no", "No", "NO", "off", "Off", "OFF")
EMPTY_LISTS = ("[]", "{}", "''", "null", "~", "")

VALID_FILES = {
    # Version 2.
    "v2: nothing else": ("version: v2", Counts()),
    **{
        f"v2: {key} of {kind}": (v2(kind, kind, key=key), counts)
        for kind, counts in (TWO | dict.fromkeys(OTHERS, Counts(other=2))).items()
        for key in ("outputs", "services")
    },
    "v2: outputs and services are one list": (
        v2("application", "database", "identity") + "services: [{type: application}, {type: x}]",
        Counts(other=2, application=2, database=1),
    ),
    "v2: unknown types": (
        v2(MARKER, "Application", "database ", "' kubernetes'", "kubernetes/v3", "'databases'"),
        Counts(other=5, database=1),
    ),
    "v2: a type that is not text": (
        v2("[application]", "{database: 1}", "null", "''", "7", "true", "2026-01-01"),
        Counts(other=7),
    ),
    "v2: quoted types": (v2("'database'", '"kubernetes"'), Counts(database=1, kubernetes=1)),
    "v2: no type": ("version: v2\noutputs: [{}, {path: x}, {types: database}]", Counts(other=3)),
    "v2: unknown keys": (
        (
            f"version: v2\n{MARKER}: [{MARKER}]\ndestinations: {MARKER}\n"
            f"? [a, b]\n: {MARKER}\n? {{a: b}}\n: 1"
        ),
        Counts(),
    ),
    "v2: null and empty lists": ("version: v2\noutputs: null\nservices: []", Counts()),
    **{
        f"v2: {key}: {empty}": (f"version: v2\n{key}: {empty}", Counts())
        for key in ("outputs", "services")
        for empty in EMPTY_LISTS
    },
    **{
        f"v1: {key}: {empty}": (
            f"{key}: {empty}\ndestinations: [{{app: x}}]",
            Counts(application=1),
        )
        for key in ("outputs", "services")
        for empty in EMPTY_LISTS
    },
    **{
        f"a document before {after!r}": (f"version: v2\noneshot: true\n---{after}", ONE_SHOT)
        for after in ("", "\n", "\n...\n", f"\n{MARKER}: 1", "\n---\n", "\na: [", "\n\t- x")
    },
    "a document before one over the limits": (
        "oneshot: true\n---\n" + "[" * 100 + "&a x," + "*a," * 2000,
        ONE_SHOT,
    ),
    "v2: keys without a value": (
        "version: v2\noutputs:\nservices:\nonboarding:\noneshot:\njoin_uri:\n",
        Counts(),
    ),
    "v2: quoted": ("'version': \"v2\"\n'outputs': ['type': \"database\"]", Counts(database=1)),
    "v2: as JSON": (
        '{"version": "v2", "oneshot": true, "outputs": [{"type": "database"}]}',
        Counts(database=1, run_mode="one-shot"),
    ),
    "v2: aliases": (
        (
            "version: v2\noutputs:\n- &a {type: database}\n- *a\n- {type: &t application}\n"
            "- {type: *t}\nservices: [*a]"
        ),
        Counts(database=3, application=2),
    ),
    "v2: an alias for a list": (
        "version: v2\noutputs: &list [{type: kubernetes}]\nservices: *list",
        Counts(kubernetes=2),
    ),
    "v2: merge keys": (
        (
            "version: v2\ndefaults: &d {type: database, service: x}\n"
            "outputs: [{<<: *d}, {<<: *d, type: application}, {type: kubernetes, <<: *d}]"
        ),
        Counts(database=1, application=1, kubernetes=1),
    ),
    "v2: lists of merge keys": (
        (
            "version: v2\na: &a {type: database}\nb: &b {type: application}\nc: &c {x: 1}\n"
            "outputs: [{<<: [*a, *b]}, {<<: [*b, *a]}, {<<: [*c, *a]}, {<<: []}]"
        ),
        Counts(database=2, application=1, other=1),
    ),
    "v2: nested merge keys": (
        (
            "version: v2\na: &a {type: database}\nb: &b {<<: *a}\nc: &c {<<: [*b]}\n"
            "d: &d {type: application}\noutputs: [{<<: *c}, {<<: [*c, *d]}, {<<: [*d, *c]}]"
        ),
        Counts(database=2, application=1),
    ),
    "v2: merge keys at the top level": (
        "<<: {version: v2, oneshot: true, onboarding: {<<: {join_method: iam}}}\noneshot: false",
        Counts(join_type="iam"),
    ),
    "v2: circular merge keys": (
        (
            "version: v2\na: &a {<<: *a, type: database}\nb: &b {<<: [*b, *a]}\n"
            "c: &c {<<: &d {<<: *c, type: application}}\noutputs: [*a, *b, *c, *d]"
        ),
        Counts(database=2, application=2),
    ),
    "v2: merge keys with other values": (
        f"version: v2\noutputs: [{{<<: {MARKER}}}, {{<<: [{MARKER}, null]}}, {{<<: null}}]",
        Counts(other=3),
    ),
    "v2: a quoted merge key is an ordinary key": (
        "version: v2\noutputs: [{'<<': {type: database}}]",
        Counts(other=1),
    ),
    "v2: a circular list in an unknown key": ("version: v2\na: &a [*a, {b: *a}]", Counts()),
    "v2: a key twice in an unknown key": ("version: v2\nx: {a: 1, a: 2}", Counts()),
    "v2: comments, document markers and a BOM": (
        "\ufeff%YAML 1.1\n# a\n---\nversion: v2 # b\n...\n",
        Counts(),
    ),
    "v2: unknown tags": (
        f"version: !x v2\noutputs: !y\n- !<tag:{MARKER},2026:z> {{type: !!str database}}",
        Counts(database=1),
    ),
    "v2: 64 levels": ("version: v2\nx: " + "[" * 63 + "]" * 63, Counts()),
    "v2: 1000 aliases": (
        "version: v2\na: &a {type: database}\noutputs: [" + "*a," * 1000 + "]",
        Counts(database=1000),
    ),
    "v2: 60 aliases that expand to 10**6 entries": (
        f"version: v2\na0: &a0 [{MARKER}]\n"
        + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n},' * 10}]\n" for n in range(6))
        + "outputs: [{type: database, x: *a6}]",
        Counts(database=1),
    ),
    # The second document is not parsed, which SafeLoader would take seconds for.
    "v2: 1 MiB": ("version: v2\n---\n".ljust(2**20, "x"), Counts()),
    "v2: 200 outputs": (v2(*["database"] * 200), Counts(database=200)),
    # Version 1, with a version and without.
    "v1: nothing else": ("version: v1", Counts()),
    "v1: without a version": ("auth_server: x", Counts()),
    "v1: an empty mapping": ("{}", Counts()),
    "v1: a version that is null": ("version: ~\ndestinations: [{app: x}]", Counts(application=1)),
    "v1: without a version, each kind": (
        (
            f"destinations: [{{app: {MARKER}}}, {{database: {{service: {MARKER}}}}}, "
            f"{{kubernetes_cluster: {MARKER}}}, {{directory: {MARKER}}}, {{memory: {{}}}}, {{}}]"
        ),
        EACH._replace(other=3),
    ),
    "v1: each kind": (
        v1(
            f"{{directory: {{path: {MARKER}}}, app: {MARKER}}}",
            f"{{directory: {MARKER}, database: {{service: {MARKER}, username: {MARKER}}}}}",
            f"{{memory: true, kubernetes_cluster: {MARKER}}}",
            f"{{directory: {MARKER}, roles: [{MARKER}]}}",
        ),
        EACH._replace(other=1),
    ),
    "v1: empty names do not count": (
        v1("{app: '', kubernetes_cluster: x}", "{app: x, kubernetes_cluster: ''}", "{app: ''}"),
        Counts(application=1, kubernetes=1, other=1),
    ),
    "v1: null does not count": (
        v1("{app: null, database: ~, kubernetes_cluster: , configs: null}"),
        Counts(other=1),
    ),
    "v1: an empty database counts": (v1("{database: {}}"), Counts(database=1)),
    "v1: configs of every form": (
        v1(
            "configs: [ssh_client, identity, tls, tls_cas, mongo, cockroach, kubernetes]",
            "configs: [ssh_client: {proxy_port: 3080}, kubernetes: null]",
            "configs: [ssh_host_cert]",
            f"configs: [ssh_host_cert: {{principals: [{MARKER}]}}]",
            "configs: [null, '', 7]",
            f"configs: {MARKER}",
            "configs: {ssh_host_cert: 1}",
            "configs: []",
        ),
        Counts(other=8),
    ),
    "v1: configs beside a kind": (
        v1(
            "{app: x, configs: [tls, ssh_client]}",
            "{database: {}, configs: [mongo: {prefix: x}]}",
            "{kubernetes_cluster: x, configs: [kubernetes]}",
        ),
        EACH,
    ),
    "v1: unknown keys": (
        v1(f"{{{MARKER}: {MARKER}, application: x, type: database}}") + f"{MARKER}: {MARKER}\n",
        Counts(other=1),
    ),
    "v1: merge keys": (
        "x: &x {app: x}\ndestinations: [{<<: *x}, {<<: *x, app: ''}]",
        Counts(application=1, other=1),
    ),
    # Both versions.
    **{
        f"oneshot: {text}": (
            f"oneshot: {text}",
            Counts(run_mode="one-shot" if once else "daemon"),
        )
        for text, once in {
            **dict.fromkeys(("true", "True", "TRUE", *TRUE_TEXTS), True),
            **dict.fromkeys(("false", "False", "FALSE", *FALSE_TEXTS), False),
            **dict.fromkeys((f"'{text}'" for text in TRUE_TEXTS), True),
            **dict.fromkeys((f'"{text}"' for text in FALSE_TEXTS), False),
            **dict.fromkeys(("", "null", "Null", "NULL", "~"), False),
            "!!bool 'true'": True,
            "!!bool FALSE": False,
            "!!str yes": True,
            "|-\n on": True,
        }.items()
    },
    **{
        f"onboarding: {text}": (f"onboarding: {text}", Counts(join_type=join_type))
        for text, join_type in {
            "null": "",
            "{}": "",
            f"{{token: {MARKER}}}": "",
            "{join_method: null}": "",
            "{join_method: ''}": "",
            "{join_method: iam}": "iam",
            "{join_method: 'bound_keypair'}": "bound_keypair",
            "{join_method: unheard_of}": "unheard_of",
            "{join_method: 7}": "7",
            f"{{join_method: tpm, token: [{MARKER}], x: {MARKER}}}": "tpm",
        }.items()
    },
    **{
        f"join_uri: {uri}": (
            f"join_uri: {uri}\nonboarding: {{join_method: iam}}",
            Counts(join_type=join_type),
        )
        for uri, join_type in {
            f"tbot+proxy+token://{MARKER}@{MARKER}:443": "token",
            f"tbot+auth+bound-keypair://{MARKER}@{MARKER}": "bound_keypair",
            "tbot+proxy+azure-devops://x": "azure_devops",
            "'tbot+proxy+env0://x:y@z:1?a=b#c'": "env0",
            "tbot+auth+terraform-cloud://": "terraform_cloud",
            "tbot+auth+unheard-of://x": "unheard_of",
            "tbot+proxy+boundkeypair://x": "bound_keypair",
            "tbot+auth+azuredevops://x": "azure_devops",
            "tbot+auth+terraformcloud://x": "terraform_cloud",
            "tbot+proxy+genericoidc://x": "generic_oidc",
            "tbot+proxy+azure://x": "azure",
            "TBOT+AUTH+iam://x": "iam",
            "tbot+auth+IAM://x": "iam",
            "Tbot+Proxy+Bound-KeyPair://x": "bound_keypair",
            "''": "iam",
            "null": "iam",
        }.items()
    },
    "with a join_uri, onboarding is not read": (
        f"join_uri: tbot+auth+tpm://x\nonboarding: {MARKER}",
        Counts(join_type="tpm"),
    ),
}


def plain(names: Iterable[str]) -> list[str]:
    """Names of cases without what pytest escapes: mutmut would not find those again."""
    return [" ".join(re.findall(r"[!-\[\]-~]+", name)) for name in names]


@pytest.mark.parametrize(("text", "counts"), VALID_FILES.values(), ids=plain(VALID_FILES))
def test_read(text: str, counts: Counts, file: Path) -> None:
    """The number of destinations of each kind, the join type and the run mode are read."""
    file.write_text(text, encoding="utf-8")
    assert _bot_config.read(file) == {
        "tbot.run_mode": counts.run_mode,
        "tbot.join_type": counts.join_type,
        "tbot.destinations_other": counts.other,
        "tbot.destinations_database": counts.database,
        "tbot.destinations_kubernetes": counts.kubernetes,
        "tbot.destinations_application": counts.application,
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    """The encodings of YAML are read; UTF-16 needs a BOM."""
    file = tmp_path / "tbot.yaml"
    file.write_text("x: \N{SNOWMAN}\nonboarding: {join_method: iam}", encoding=encoding)
    assert _bot_config.read(file)["tbot.join_type"] == "iam"


NOT_YAML = "not valid YAML"
NOT_A_FILE = "expected a file"
MANY_KEYS = ",".join(f"k{number}: " for number in range(1000))
NOT_A_MAPPING = "the file: expected a mapping"
CONTRADICTION = (
    "destinations: expected at most one of app, database, kubernetes_cluster and ssh_host_cert "
    "in each"
)
KINDS_V1 = {
    "app": f"app: {MARKER}",
    "database": f"database: {{service: {MARKER}}}",
    "kubernetes_cluster": f"kubernetes_cluster: {MARKER}",
    "ssh_host_cert": "configs: [tls, ssh_host_cert]",
    "ssh_host_cert as a map": f"configs: [ssh_host_cert: {{principals: [{MARKER}]}}]",
}

INVALID_FILES: dict[str, tuple[str | bytes, int | None, str]] = {
    # Not YAML. A file that cannot be decoded has no line numbers.
    "a tab": (f"version: v2\noutputs:\n\t- type: {MARKER}\n", 3, NOT_YAML),
    "an unclosed quote": (f"a: b\nc: '{MARKER}", 2, NOT_YAML),
    "an unclosed double quote": (f'a: b\nc: "{MARKER}', 2, NOT_YAML),
    "an unclosed list": (f"a: b\nc: [{MARKER}\nd: e", 3, NOT_YAML),
    "an unclosed mapping": (f"a: b\nc: {{x: {MARKER}\nd: e", 3, NOT_YAML),
    "a mapping in a line": (f"a: b\nc: {MARKER}: {MARKER}", 2, NOT_YAML),
    "a list after a mapping": (f"a: {MARKER}\n- {MARKER}", 2, NOT_YAML),
    "an undefined alias": (f"a: b\nc: *{MARKER}", 2, NOT_YAML),
    "an alias before its anchor": (f"a: *{MARKER}\nb: &{MARKER} c", 1, NOT_YAML),
    "an undefined tag handle": (f"a: b\nc: !{MARKER}!x y", 2, NOT_YAML),
    "an unclosed tag": (f"a: b\nc: !<{MARKER} y", 2, NOT_YAML),
    "a reserved character": (f"a: b\nc: @{MARKER}", 2, NOT_YAML),
    "an unknown version of YAML": (f"%YAML 2.0\n---\na: {MARKER}", 1, NOT_YAML),
    "an unknown escape": (f'a: b\nc: "\\y{MARKER}"', 2, NOT_YAML),
    "invalid UTF-8": (f"a: {MARKER}".encode() + b"\xff", None, NOT_YAML),
    "UTF-16 that is cut off": (b"\xff\xfea\0:\0 \0b", None, NOT_YAML),
    "UTF-16 without a BOM": (f"a: {MARKER}".encode("utf-16-le"), None, NOT_YAML),
    "a NUL": (f"a: {MARKER}\0", None, NOT_YAML),
    "a control character": (f"a: {MARKER}\x1b[31m", None, NOT_YAML),
    # Not a mapping.
    "empty": ("", None, NOT_A_MAPPING),
    "blank": ("\n \n", None, NOT_A_MAPPING),
    "a comment": (f"# {MARKER}\n", None, NOT_A_MAPPING),
    "an empty document": ("---\n...\n", 2, NOT_A_MAPPING),
    "a list": (f"\n\n- {MARKER}\n", 3, NOT_A_MAPPING),
    "a text": (MARKER, 1, NOT_A_MAPPING),
    "a null": ("null", 1, NOT_A_MAPPING),
    # Over a limit.
    "1 MiB and a byte": (f"a: {MARKER}\n#" + "x" * 2**20, None, "expected at most 1048576 bytes"),
    "65 levels": (
        f"a:\n  b: {MARKER}\nc: " + "[" * 64 + MARKER + "]" * 64,
        3,
        "expected at most 64 levels of nesting",
    ),
    "65 levels after a level that ended": (
        "c: " + "[" * 40 + "[]," + "[" * 24,
        1,
        "expected at most 64 levels of nesting",
    ),
    "65 levels on lines of their own": (
        "".join(f"{' ' * n}a:\n" for n in range(65)),
        65,
        "expected at most 64 levels of nesting",
    ),
    # libyaml 0.2.6 itself refuses more than 1000 brackets.
    "1000 brackets": ("[" * 1000, 1, "expected at most 64 levels of nesting"),
    "1000 braces": ("{" * 1000, 1, "expected at most 64 levels of nesting"),
    "100,000 dashes": ("- " * 100_000, 1, "expected at most 64 levels of nesting"),
    "1001 aliases": (
        f"a: &a {MARKER}\nb: [" + "*a," * 1000 + "]\nc: *a",
        3,
        "expected at most 1000 aliases",
    ),
    **{
        f"a long {what} that is repeated": (
            f"{version}\nx: &x {{{content}}}\n{key}:\n" + f"- {entry}\n" * 800,
            2,
            "expected at most 500000 keys and entries",
        )
        for what, content, entry, version, key in (
            ("mapping", MANY_KEYS, "{<<: *x}", "version: v2", "outputs"),
            ("alias", MANY_KEYS, "*x", "version: v2", "services"),
            ("list of merge keys", f"<<: [{'{},' * 1000}]", "{<<: *x}", "", "destinations"),
            ("list of other values", f"<<: [{'1,' * 1000}]", "{<<: *x}", "", "destinations"),
            ("list of configs", f"configs: [{'tls,' * 1000}]", "{<<: *x}", "", "destinations"),
        )
    },
    # Duplicate keys.
    "a key twice": (
        f"version: v2\nx: {MARKER}\n'x': {MARKER}",
        3,
        "the file: expected each key once",
    ),
    **{
        f"a key twice in an entry of {key}": (
            f"{version}\n{key}:\n- type: {MARKER}\n- type: {MARKER}\n  type: {MARKER}",
            5,
            f"an entry of {key}: expected each key once",
        )
        for key, version in {
            "outputs": "version: v2",
            "services": "version: v2",
            "destinations": "version: v1",
        }.items()
    },
    "a key twice in a merged mapping": (
        f"version: v2\noutputs:\n- <<:\n    x: {MARKER}\n    x: {MARKER}",
        5,
        "an entry of outputs: expected each key once",
    ),
    "a key twice in onboarding": (
        f"onboarding:\n  token: {MARKER}\n  token: {MARKER}",
        3,
        "onboarding: expected each key once",
    ),
    "a key twice in an entry of configs": (
        "destinations:\n- configs:\n  - tls:\n    tls:\n",
        4,
        "an entry of configs: expected each key once",
    ),
    # Versions.
    **{
        f"version {text}": (f"x: {MARKER}\nversion: {text}", 2, "version: expected v1 or v2")
        for text in ("v3", "3", "2", "V2", "v2.0", "'v2 '", "true", MARKER)
    },
    **{
        f"version {text}": (f"x: {MARKER}\nversion: {text}", 2, "version: expected text")
        for text in ("[]", "{}", f"[{MARKER}]", "{v2: v2}")
    },
    **{
        f"{key} with {version or 'no version'}": (
            f"{version}\n{key}: [{{type: {MARKER}}}]",
            2,
            f"{key}: expected only in a file with version: v2",
        )
        for key in ("outputs", "services")
        for version in ("version: v1", "version: null", "")
    },
    # Types.
    **{
        f"oneshot {text}": (f"x: {MARKER}\noneshot: {text}", 2, "oneshot: expected true or false")
        for text in (
            "'true'",
            "1",
            "0",
            "[]",
            "{}",
            MARKER,
            "''",
            "t",
            "!!bool maybe",
            "!!bool yes",
            "!!bool 'no'",
            *("!x yes", "!!int y"),
            "!!str true",
            '"FALSE"',
            *("yEs", "oN", "tRUE", "nO", "0x1", "1.0", "'y '"),
        )
    },
    **{
        f"{key} {text}": (f"version: {version}\n{key}: {text}", 2, f"{key}: expected a list")
        for key, version in {"outputs": "v2", "services": "v2", "destinations": "v1"}.items()
        for text in (MARKER, "1", f"{{type: {MARKER}}}", "true")
    },
    **{
        f"destinations {text}": (f"x: 1\ndestinations: {text}", 2, "destinations: expected a list")
        for text in ("''", "{}")
    },
    **{
        f"an entry of {key} {text}": (
            f"version: {version}\n{key}:\n- {{}}\n- {text}",
            4,
            f"an entry of {key}: expected a mapping",
        )
        for key, version in {"outputs": "v2", "services": "v2", "destinations": "v1"}.items()
        for text in (MARKER, "null", f"[{MARKER}]", "1")
    },
    **{
        f"onboarding {text}": (f"\nonboarding: {text}", 2, "onboarding: expected a mapping")
        for text in (MARKER, f"[{MARKER}]", "''", "true")
    },
    **{
        f"{key} {text}": (before + text, 2, f"{key}: expected text")
        for key, before in {
            "join_uri": "\njoin_uri: ",
            "join_method": "onboarding:\n  join_method: ",
            "app": "destinations:\n- app: ",
            "kubernetes_cluster": "destinations:\n- kubernetes_cluster: ",
        }.items()
        for text in (f"[{MARKER}]", f"{{{MARKER}: {MARKER}}}", "{}")
    },
    **{
        f"join_uri {uri}": (
            f"x: {MARKER}\njoin_uri: {uri}",
            2,
            "join_uri: expected tbot+proxy+METHOD://TOKEN@ADDRESS",
        )
        for uri in (
            *(MARKER, f"https://{MARKER}", f"tbot+proxy://{MARKER}@x", f"tbot+auth+://{MARKER}"),
            *(
                f"tbot+relay+iam://{MARKER}",
                f"tbot+auth+bound_keypair://{MARKER}",
                "tbot+auth+\N{KELVIN SIGN}ubernetes://x",
            ),
            *(f"tbot+auth+iam:{MARKER}", f"xtbot+auth+iam://{MARKER}"),
        )
    },
    # Contradictions.
    **{
        f"{one} and {other}": (
            f"destinations:\n- directory: {MARKER}\n- {{{KINDS_V1[one]}, {KINDS_V1[other]}}}",
            3,
            CONTRADICTION,
        )
        for one in ("app", "database", "kubernetes_cluster")
        for other in KINDS_V1
        if one < other
    },
    "all kinds": (
        "destinations:\n- {" + ", ".join(list(KINDS_V1.values())[:4]) + "}",
        2,
        CONTRADICTION,
    ),
    "a contradiction by a merge key": (
        f"x: &x {{app: {MARKER}}}\ndestinations:\n- <<: *x\n  database: {{}}",
        3,
        CONTRADICTION,
    ),
    "a list in configs": (
        f"destinations:\n- configs:\n  - tls\n  - [{MARKER}]",
        4,
        "an entry of configs: expected a mapping",
    ),
}


@pytest.mark.parametrize(
    ("content", "line", "problem"), INVALID_FILES.values(), ids=plain(INVALID_FILES)
)
def test_invalid_file(content: str | bytes, line: int | None, problem: str, file: Path) -> None:
    """A file that is refused is one line, which names its place."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BotConfigError) as caught:
        _bot_config.read(file)
    place = str(file) if line is None else f"{file}:{line}"
    assert str(caught.value) == f"{place}: {problem}"


@pytest.mark.parametrize("character", ["[", "{"])
def test_too_many_brackets(character: str, tmp_path: Path) -> None:
    """Very many brackets are refused. libyaml may refuse them first, with its own limit."""
    file = tmp_path / "tbot.yaml"
    file.write_text(character * 100_000)
    with pytest.raises(BotConfigError) as caught:
        _bot_config.read(file)
    problems = ["expected at most 64 levels of nesting"]
    if not issubclass(_bot_config._Loader, yaml.SafeLoader):
        problems.append(NOT_YAML)
    assert str(caught.value) in [f"{file}:1: {problem}" for problem in problems]


@pytest.mark.parametrize("number", ["00110000", "7FFFFFFF", "80000000", "FFFFFFFF"])
def test_invalid_code_point(number: str, tmp_path: Path) -> None:
    """An escape outside Unicode is not YAML. Only libyaml reports the line."""
    file = tmp_path / "tbot.yaml"
    file.write_text(f'"{MARKER}": "\\U{number}"')
    with pytest.raises(BotConfigError) as caught:
        _bot_config.read(file)
    assert str(caught.value) in (f"{file}:1: {NOT_YAML}", f"{file}: {NOT_YAML}")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("{folder}/missing.yaml", "No such file or directory"),
        ("{folder}", "Is a directory"),
        ("{folder}/tbot.yaml/x", "Not a directory"),
        ("{folder}/" + "x" * 300, "File name too long"),
        *((path, NOT_A_FILE) for path in ("/dev/zero", "/dev/null", "{folder}/pipe")),
        # root can read every file.
        *([("{folder}/locked.yaml", "Permission denied")] if os.geteuid() else []),
    ],
)
def test_unreadable_file(path: str, problem: str, tmp_path: Path) -> None:
    """A file that cannot be read, or could keep us waiting, is refused with one line."""
    (tmp_path / "tbot.yaml").touch()
    (tmp_path / "locked.yaml").touch(0)
    os.mkfifo(tmp_path / "pipe")
    place = path.format(folder=tmp_path)
    with pytest.raises(BotConfigError) as caught:
        _bot_config.read(place)
    assert str(caught.value) == f"{place}: {problem}"


_FRAGMENTS = (
    *("version: v2\n", "version: v1\n", "outputs:\n", "services: ", "destinations:\n"),
    *("onboarding:\n", "join_method: ", "join_uri: ", "tbot+auth+iam://", "oneshot: ", "type: "),
    *("app: ", "database: ", "kubernetes_cluster: ", "configs:\n", "ssh_host_cert", "true\n"),
    *("&a ", "*a", "&b ", "*b", "<<: ", "- ", "? ", ": ", ", ", "[", "]", "{", "}", "|\n", ">-\n"),
    *("'", '"', "\\", "\n", "\n  ", "  ", "\t", "#", "@", "%", "=", "~", "---\n", "...\n", MARKER),
    *("!", "!!", "!<", ">", "!!bool ", "!!merge ", "!!str ", "%YAML 1.1\n", "%TAG ! x\n"),
    *('"\\U', "FFFFFFFF", '"\\u', "D800", '"\\x', "%FF", "\0", "\x85", "\ufeff", "\u2028", "null"),
)
_FILES = st.binary() | st.builds(
    str.encode, st.lists(st.sampled_from(_FRAGMENTS) | st.text(max_size=3)).map("".join)
)


@examples(200)
@given(content=_FILES)
def test_anything(file: Path, content: bytes) -> None:
    """Any file is read, or refused with one line that does not repeat its text."""
    file.write_bytes(content)
    check_bot_config(file)


def test_base64_in_lines() -> None:
    """A variable can have base64 in lines, as the command base64 writes it."""
    text = base64.encodebytes(("oneshot: true\n" + "# comment\n" * 20).encode()).decode()
    assert len(text.splitlines()) > 2
    assert _bot_config.read_text(text, "TBOT_CONFIG")["tbot.run_mode"] == "one-shot"


def test_null_destinations() -> None:
    """A key without a value is as if it were not there."""
    assert _bot_config.parse(b"destinations:\noneshot: true", "x")["tbot.run_mode"] == "one-shot"


def test_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping and each of its keys are counted once."""
    monkeypatch.setattr(_bot_config, "MAX_VISITS", 3)
    _bot_config.parse(b"a: 1\nb: 2", "x")
    monkeypatch.setattr(_bot_config, "MAX_VISITS", 2)
    with pytest.raises(BotConfigError, match="expected at most 2 keys and entries"):
        _bot_config.parse(b"a: 1\nb: 2", "x")
