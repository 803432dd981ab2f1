"""Writes columns as an uncompressed Parquet file, which DuckDB reads faster than other input.

Format: https://parquet.apache.org/docs/file-format/. Its metadata are structs in Thrift's compact
protocol: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Final, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_MAGIC = b"PAR1"
# Thrift's types.
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_MAX_SHORT_LIST = 14

_Field = tuple[int, int, bytes]
"""The number, the type and the encoded value of a field of a struct."""


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _int(number: int, value: int, type: int = _I32) -> _Field:
    return number, type, _varint(2 * value)


def _text(number: int, value: str) -> _Field:
    return number, _BINARY, _varint(len(value)) + value.encode()


def _list(number: int, type: int, items: "Sequence[bytes]") -> _Field:
    size = len(items)
    head = bytes([min(size, _MAX_SHORT_LIST + 1) << 4 | type])
    return (
        number,
        _LIST,
        head + (_varint(size) if size > _MAX_SHORT_LIST else b"") + b"".join(items),
    )


def _struct(*fields: _Field) -> bytes:
    encoded = b""
    last = 0
    for number, kind, value in fields:
        encoded += bytes([number - last << 4 | kind]) + value
        last = number
    return encoded + b"\0"


class Kind(NamedTuple):
    """A type of values: the Parquet type, and the fields of a ``SchemaElement`` that say more."""

    type: int
    size: "tuple[_Field, ...]" = ()
    meaning: "tuple[_Field, ...]" = ()


INT32: Final = Kind(1)
"""4 bytes, the lowest first."""
TEXT: Final = Kind(6, meaning=(_int(6, 0),))
"""UTF-8; see `encode_texts`."""
UUID: Final = Kind(7, (_int(2, 16),), ((10, _STRUCT, _struct((14, _STRUCT, _struct()))),))
"""16 bytes."""


def encode_texts(texts: "Iterable[str]") -> bytes:
    """Encode the values of a column of `TEXT`: each after its length."""
    encoded = (text.encode() for text in texts)
    return b"".join(part for text in encoded for part in (len(text).to_bytes(4, "little"), text))


def write_parquet(path: "Path", rows: int, columns: "dict[str, tuple[Kind, bytes]]") -> None:
    """Write a file.

    Args:
        path: The file.
        rows: How many rows there are.
        columns: The kind and the values, one after the other, of each column.
    """
    schema = [_struct(_text(4, "schema"), _int(5, len(columns)))]
    chunks = []
    position = len(_MAGIC)
    with path.open("wb") as file:
        file.write(_MAGIC)
        for name, (kind, values) in columns.items():
            # A column is required, and its only page is of the type DATA_PAGE, encoded as PLAIN.
            levels = _struct(_int(1, rows), _int(2, 0), _int(3, 3), _int(4, 3))
            head = _struct(
                _int(1, 0), _int(2, len(values)), _int(3, len(values)), (5, _STRUCT, levels)
            )
            size = file.write(head) + file.write(values)
            schema.append(
                _struct(_int(1, kind.type), *kind.size, _int(3, 0), _text(4, name), *kind.meaning)
            )
            metadata = _struct(
                _int(1, kind.type),
                _list(2, _I32, [_varint(0)]),
                _list(3, _BINARY, [_text(0, name)[2]]),
                _int(4, 0),
                _int(5, rows, _I64),
                _int(6, size, _I64),
                _int(7, size, _I64),
                _int(9, position, _I64),
            )
            chunks.append(_struct(_int(2, position, _I64), (3, _STRUCT, metadata)))
            position += size
        group = _struct(
            _list(1, _STRUCT, chunks), _int(2, position - len(_MAGIC), _I64), _int(3, rows, _I64)
        )
        footer = _struct(
            _int(1, 1), _list(2, _STRUCT, schema), _int(3, rows, _I64), _list(4, _STRUCT, [group])
        )
        file.write(footer + len(footer).to_bytes(4, "little") + _MAGIC)
