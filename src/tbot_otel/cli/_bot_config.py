"""Reads the attributes of a start from a tbot.yaml, version 1 or 2.

Only three things are read: the number of destinations of each kind, the run mode, and the join
method. No other value becomes an object, and no value is repeated in a message. Teleport defines
the kinds of destinations (https://goteleport.com/docs/reference/machine-id/configuration/).
"""

import os
import re
from collections import deque

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tbot_otel.errors import TbotOtelError

MAX_BYTES = 2**20
"""The largest file that is read."""
MAX_DEPTH = 64
"""The deepest nesting of mappings and lists."""
MAX_ALIASES = 64
"""The most aliases in a file."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KINDS = ("application", "database", "kubernetes")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_JOIN_URI = re.compile(r"tbot\+(?:proxy|auth)\+([a-z0-9-]+)://")


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
        path: The file.

    Returns:
        The run mode, the join type and the counts, by the attributes' names. The join type is the
        file's own text: policy has not decided on it.

    Raises:
        BotConfigError: The file cannot be read; is not YAML or not a mapping; is too large or too
            deep, or has too many aliases; has another version; contradicts itself; or has a wrong
            type where this module reads it.
    """
    file = _File(os.fspath(path))
    fields = file.mapping(file.root(), "the file")
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
            return match[1].replace("-", "_")
        raise file.error(fields["join_uri"], "join_uri: expected tbot+proxy+METHOD://TOKEN@ADDRESS")
    if _is_null(fields.get("onboarding")):
        return ""
    return file.text(file.mapping(fields["onboarding"], "onboarding"), "join_method")


def _destination_kinds(file: "_File", fields: dict[str, Node]) -> list[str]:
    version = file.text(fields, "version")
    if version == "v2":
        entries = file.entries(fields, "outputs") + file.entries(fields, "services")
        types = [entry.get("type") for _, entry in entries]
        return [
            node.value if isinstance(node, ScalarNode) and node.value in _KINDS else "other"
            for node in types
        ]
    if version not in ("", "v1"):
        raise file.error(fields["version"], "version: expected v1 or v2")
    for key in ("outputs", "services"):
        if key in fields:
            raise file.error(fields[key], f"{key}: expected only in a file with version: v2")
    return [_v1_kind(file, *entry) for entry in file.entries(fields, "destinations")]


def _v1_kind(file: "_File", node: Node, destination: dict[str, Node]) -> str:
    templates = destination.get("configs")
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
    return node is None or node.tag == "tag:yaml.org,2002:null"


class _File:
    """A YAML file as a tree of nodes, which have line numbers."""

    def __init__(self, path: str) -> None:
        self._path = path

    def error(self, where: object, problem: str) -> BotConfigError:
        """Return an error at the line of a node or mark."""
        mark = getattr(where, "start_mark", where)
        # libyaml's marks have another class.
        line = getattr(mark, "line", None)
        return BotConfigError(self._path if line is None else f"{self._path}:{line + 1}", problem)

    def root(self) -> Node:
        try:
            with open(self._path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise self.error(None, error.strerror or "cannot be read") from None
        if len(data) > MAX_BYTES:
            raise self.error(None, f"expected at most {MAX_BYTES} bytes")
        try:
            self._check_limits(data)
            root = yaml.compose(data, Loader=_Loader)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            mark = getattr(error, "problem_mark", None)
            # The parser's own message repeats text of the file.
            raise self.error(mark, "expected one YAML document") from None
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
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > MAX_DEPTH:
                raise self.error(event, f"expected at most {MAX_DEPTH} levels of nesting")
            if aliases > MAX_ALIASES:
                raise self.error(event, f"expected at most {MAX_ALIASES} aliases")

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
            own: set[str] = set()
            for key, value in source.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    merged = value.value if isinstance(value, SequenceNode) else [value]
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
        flag = _FLAGS.get(node.value.lower()) if isinstance(node, ScalarNode) else None
        if flag is None or node.tag != "tag:yaml.org,2002:bool":
            raise self.error(node, f"{name}: expected true or false")
        return flag
