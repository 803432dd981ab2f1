"""Reads the attributes of a start from a tbot.yaml, version 1 or 2.

Only three things are read: the number of destinations of each kind, the run mode, and the join
method. No other value becomes an object, and no value is repeated in a message. Teleport defines
the kinds of destinations (https://goteleport.com/docs/reference/machine-workload-identity/configuration/).
"""

import base64
import contextlib
import os
import re
from collections import deque

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tbot_otel.errors import TbotOtelError
from tbot_otel.files import expect_file
from tbot_otel.registry import START

MAX_BYTES = 2**20
"""The largest file that is read."""
MAX_DEPTH = 64
"""The deepest nesting of mappings and lists."""
MAX_ALIASES = 1000
"""The most aliases in a file."""
MAX_VISITS = 500_000
"""The most keys and entries that are looked at, each time that an alias repeats them."""

_KINDS = ("application", "database", "kubernetes")
_JOIN_URI = re.compile(r"tbot\+(?:proxy|auth)\+([a-z0-9-]+)://", re.ASCII | re.IGNORECASE)
# A method of a join URI has hyphens for underscores, or neither.
_JOIN_METHODS = {
    method.replace("_", ""): method
    for attribute in START.attributes
    if attribute.name == "tbot.join_type"
    for method in attribute.values
}
_BOOL = "tag:yaml.org,2002:bool"
_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_TEXT = "tag:yaml.org,2002:str"
# tbot's parser, yaml.v3, takes YAML 1.2's booleans, and these texts of YAML 1.1, also quoted.
_TEXT_FLAGS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_FLAGS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def like_yaml_v3(loader: type) -> type:
    """Return a loader that resolves unquoted text as yaml.v3 does, where this module needs it."""
    loader = type(loader.__name__, (loader,), {"yaml_implicit_resolvers": {}})
    for tag, texts in (
        (_BOOL, _FLAGS),
        (_MERGE, ["<<"]),
        (_NULL, ["", "~", "null", "Null", "NULL"]),
    ):
        pattern = re.compile(f"(?:{'|'.join(map(re.escape, texts))})\\Z")
        loader.add_implicit_resolver(tag, pattern, None)  # type: ignore[attr-defined] # yaml's
    return loader


_Loader = like_yaml_v3(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class BotConfigError(TbotOtelError):
    """A tbot.yaml cannot be read or counted.

    Args:
        place: The file, with the line if it is known: ``tbot.yaml:7``.
        problem: The key, and what was expected at it.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")


def read(path: str | os.PathLike[str]) -> dict[str, object]:
    """Read the attributes of a start from a tbot.yaml.

    Args:
        path: The file; ``-`` is standard input.

    Returns:
        The run mode, the join type and the counts, by the attributes' names. The join type is the
        file's own text: policy has not decided on it.

    Raises:
        BotConfigError: The file cannot be read; is not YAML or not a mapping; is too large or too
            deep, or has too many aliases; has another version; contradicts itself; or has a wrong
            type where this module reads it.
    """
    path = os.fspath(path)
    place = "standard input" if path == "-" else path
    try:
        if path != "-":
            expect_file(path)
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            return parse(file.read(MAX_BYTES + 1), place)
    except OSError as error:
        raise BotConfigError(place, error.strerror or "cannot be read") from None


def read_text(text: str, place: str) -> dict[str, object]:
    """Read the attributes of a start from a tbot.yaml that a variable has, in base64 or plain."""
    data = os.fsencode(text)
    # A mapping has characters that base64 does not have.
    with contextlib.suppress(ValueError):
        data = base64.b64decode(b"".join(data.split()), validate=True)
    return parse(data, place)


def parse(data: bytes, place: str) -> dict[str, object]:
    """Do as `read`, with the content of a file."""
    file = _File(place)
    fields = file.mapping(file.root(data), "the file")
    kinds = _destination_kinds(file, fields)
    counts = {kind: kinds.count(kind) for kind in ("other", *_KINDS)}
    return {
        "tbot.run_mode": "one-shot" if file.flag(fields, "oneshot") else "daemon",
        "tbot.join_type": _join_method(file, fields),
        **{f"tbot.destinations_{kind}": count for kind, count in counts.items()},
    }


def _join_method(file: "_File", fields: dict[str, Node]) -> str:
    if uri := file.text(fields, "join_uri"):
        if match := _JOIN_URI.match(uri):
            method = match[1].lower()
            return _JOIN_METHODS.get(method, method.replace("-", "_"))
        raise file.error(fields["join_uri"], "join_uri: expected tbot+proxy+METHOD://TOKEN@ADDRESS")
    if _is_null(fields.get("onboarding")):
        return ""
    return file.text(file.mapping(fields["onboarding"], "onboarding"), "join_method")


def _destination_kinds(file: "_File", fields: dict[str, Node]) -> list[str]:
    version = file.text(fields, "version")
    if version == "v2":
        lists = [key for key in ("outputs", "services") if not _is_empty(fields.get(key))]
        entries = [entry for key in lists for entry in file.entries(fields, key)]
        types = [entry.get("type") for _, entry in entries]
        return [
            node.value if isinstance(node, ScalarNode) and node.value in _KINDS else "other"
            for node in types
        ]
    if version not in ("", "v1"):
        raise file.error(fields["version"], "version: expected v1 or v2")
    for key in ("outputs", "services"):
        if not _is_empty(fields.get(key)):
            raise file.error(fields[key], f"{key}: expected only in a file with version: v2")
    return [_v1_kind(file, *entry) for entry in file.entries(fields, "destinations")]


def _v1_kind(file: "_File", node: Node, destination: dict[str, Node]) -> str:
    templates = destination.get("configs")
    if isinstance(templates, SequenceNode):
        file.visit(templates)
    template_names = [
        name
        for template in (templates.value if isinstance(templates, SequenceNode) else [])
        for name in (
            [template.value]
            if isinstance(template, ScalarNode)
            else file.mapping(template, "an entry of configs")
        )
    ]
    found = [
        kind
        for kind, present in (
            ("application", file.text(destination, "app")),
            ("database", not _is_null(destination.get("database"))),
            ("kubernetes", file.text(destination, "kubernetes_cluster")),
            ("other", "ssh_host_cert" in template_names),
        )
        if present
    ]
    if len(found) > 1:
        raise file.error(
            node,
            "destinations: expected at most one of app, database, kubernetes_cluster and "
            "ssh_host_cert in each",
        )
    return found[0] if found else "other"


def _is_null(node: Node | None) -> bool:
    return node is None or node.tag == _NULL


def _is_empty(node: Node | None) -> bool:
    """Return whether tbot takes a node for an empty list of outputs or services."""
    return _is_null(node) or not node.value  # type: ignore[union-attr] # checked


class _File:
    """The first document of a YAML file, as a tree of nodes, which have line numbers."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._visits = 0

    def error(self, where: object, problem: str) -> BotConfigError:
        """Return an error at the line of a node or mark."""
        mark = getattr(where, "start_mark", where)
        # libyaml's marks have another class.
        line = getattr(mark, "line", None)
        return BotConfigError(self._place if line is None else f"{self._place}:{line + 1}", problem)

    def root(self, data: bytes) -> Node:
        if len(data) > MAX_BYTES:
            raise self.error(None, f"expected at most {MAX_BYTES} bytes")
        try:
            self._check_limits(data)
            root = next(yaml.compose_all(data, Loader=_Loader), None)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            mark = getattr(error, "problem_mark", None)
            # The parser's own message repeats text of the file.
            raise self.error(mark, "not valid YAML") from None
        if root is None:
            raise self.error(None, "the file: expected a mapping")
        return root

    def _check_limits(self, data: bytes) -> None:
        depth = aliases = 0
        for event in yaml.parse(data, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentEndEvent):
                return
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > MAX_DEPTH:
                raise self.error(event, f"expected at most {MAX_DEPTH} levels of nesting")
            if aliases > MAX_ALIASES:
                raise self.error(event, f"expected at most {MAX_ALIASES} aliases")

    def visit(self, node: Node) -> None:
        """Count a mapping's keys or a list's entries, since aliases can repeat long ones."""
        self._visits += 1 + len(node.value)
        if self._visits > MAX_VISITS:
            raise self.error(node, f"expected at most {MAX_VISITS} keys and entries")

    def mapping(self, node: Node, name: str) -> dict[str, Node]:
        """Return a mapping's fields, including merged ones (``<<``)."""
        if not isinstance(node, MappingNode):
            raise self.error(node, f"{name}: expected a mapping")
        fields: dict[str, Node] = {}
        sources = deque([node])
        seen: set[Node] = set()
        while sources:
            source = sources.popleft()
            if not isinstance(source, MappingNode) or source in seen:
                continue
            seen.add(source)
            self.visit(source)
            own: set[str] = set()
            for key, value in source.value:
                if key.tag == _MERGE:
                    merged = [value]
                    if isinstance(value, SequenceNode):
                        self.visit(value)
                        merged = value.value
                    sources.extendleft(reversed(merged))
                elif isinstance(key, ScalarNode):
                    if key.value in own:
                        raise self.error(key, f"{name}: expected each key once")
                    own.add(key.value)
                    fields.setdefault(key.value, value)
        return fields

    def entries(self, fields: dict[str, Node], name: str) -> list[tuple[Node, dict[str, Node]]]:
        """Return the entries of a list of mappings, each with its fields."""
        node = fields.get(name)
        if node is None or _is_null(node):
            return []
        if not isinstance(node, SequenceNode):
            raise self.error(node, f"{name}: expected a list")
        return [(entry, self.mapping(entry, f"an entry of {name}")) for entry in node.value]

    def text(self, fields: dict[str, Node], name: str) -> str:
        """Return a text; empty if it is missing."""
        node = fields.get(name)
        if node is None or _is_null(node):
            return ""
        if not isinstance(node, ScalarNode):
            raise self.error(node, f"{name}: expected text")
        return str(node.value)

    def flag(self, fields: dict[str, Node], name: str) -> bool:
        """Return a boolean; False if it is missing."""
        node = fields.get(name)
        if node is None or _is_null(node):
            return False
        texts = _FLAGS if node.tag == _BOOL else _TEXT_FLAGS
        flag = texts.get(node.value) if isinstance(node, ScalarNode) else None
        if flag is None or node.tag not in (_BOOL, _TEXT):
            raise self.error(node, f"{name}: expected true or false")
        return flag
