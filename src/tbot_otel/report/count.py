"""Counts starts, each session once, with bounded memory."""

import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from tbot_otel.registry import START
from tbot_otel.report.document import (
    DESTINATION_KINDS,
    REASONS,
    TABLES,
    Document,
    Folded,
    Period,
    Records,
    Table,
)
from tbot_otel.report.parse import COLUMNS, Chunk, Values
from tbot_otel.report.reader import ReportError

MEMORY_LIMIT_MIB: Final = 256
"""What DuckDB may take. The rest goes to files in its temporary folder."""

# Memory for the indexes of distinct values, and for starts that are not in DuckDB yet.
_MAX_INDEXES = 100_000
_MAX_PENDING = 200_000

_COUNTS = {attribute.name for attribute in START.attributes if attribute.type == "int"}
_TYPES = {column: "USMALLINT" if f"tbot.{column}" in _COUNTS else "VARCHAR" for column in COLUMNS}
_KINDS = ", ".join(
    f"CASE WHEN destinations_{kind} > 0 THEN '{kind}' END" for kind in DESTINATION_KINDS
)
_TOTAL = " + ".join(f"destinations_{kind}::INTEGER" for kind in DESTINATION_KINDS)
_Columns = dict[str, "np.ndarray[Any, Any]"]


class StartCounter:
    """Counts starts.

    Args:
        folder: A private folder for temporary files.

    Attributes:
        starts: How many starts there are, once they are counted.
    """

    def __init__(self, folder: Path) -> None:
        self.starts = 0
        self._folder = folder
        self._indexes: dict[Values, int] = {}
        self._next_index = 0
        self._pending: list[_Columns] = []
        self._pending_count = 0
        self._added = 0
        self._read = 0
        self._unreadable = 0
        self._refused: Counter[str] = Counter()
        self._database = duckdb.connect(
            config={
                "allow_community_extensions": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "memory_limit": f"{MEMORY_LIMIT_MIB}MiB",
                "temp_directory": str(folder),
                "threads": min(4, os.cpu_count() or 1),
            }
        )
        types = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
        # DuckDB would print a progress bar to standard output.
        self._database.execute(f"""
            SET enable_progress_bar = false;
            SET allowed_directories = [{_quote(str(folder))}];
            SET enable_external_access = false;
            SET lock_configuration = true;
            CREATE TABLE starts (high UBIGINT, low UBIGINT, day INTEGER, index INTEGER);
            CREATE TABLE start_values (index INTEGER, {types});
        """)

    def add(self, chunk: Chunk, skipped: int) -> None:
        """Add the starts of a chunk.

        Args:
            chunk: The chunk. Of two starts with the same session id, the one that was added first
                counts.
            skipped: How many lines or messages before it were skipped.
        """
        self._read += chunk.read
        self._unreadable += chunk.unreadable + skipped
        self._refused += chunk.refused
        if not chunk.days:
            return
        ids = np.frombuffer(chunk.session_ids, np.uint64).reshape(-1, 2)
        indexes = self._add_values(chunk.values)[np.frombuffer(chunk.indexes, np.int32)]
        self._pending.append(
            {
                "high": ids[:, 0].copy(),
                "low": ids[:, 1].copy(),
                "day": np.frombuffer(chunk.days, np.int32),
                "index": indexes,
            }
        )
        self._added += len(indexes)
        self._pending_count += len(indexes)
        if self._pending_count >= _MAX_PENDING:
            self._flush()

    def _add_values(self, values: list[Values]) -> "np.ndarray[Any, Any]":
        """Return the index of each."""
        if len(self._indexes) > _MAX_INDEXES:
            # The same values can have two indexes.
            self._indexes.clear()
        # Different JSON texts can decode to the same values.
        new = dict.fromkeys(item for item in values if item not in self._indexes)
        for item in new:
            self._indexes[item] = self._next_index
            self._next_index += 1
        if new:
            columns = {
                name: np.array(column, np.uint16 if kind == "USMALLINT" else object)
                for (name, kind), column in zip(_TYPES.items(), zip(*new, strict=True), strict=True)
            }
            index = np.array([self._indexes[item] for item in new], np.int32)
            self._insert("start_values", {"index": index, **columns})
        return np.array([self._indexes[item] for item in values], np.int32)

    def _flush(self) -> None:
        if self._pending:
            names = self._pending[0]
            columns = {
                name: np.concatenate([part[name] for part in self._pending]) for name in names
            }
            self._insert("starts", columns)
            self._pending.clear()
            self._pending_count = 0

    def _insert(self, table: str, columns: "_Columns") -> None:
        self._database.register("inserted", columns)
        self._execute(f"INSERT INTO {table} FROM inserted")
        self._database.unregister("inserted")

    def _execute(self, statement: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._database.execute(statement)
        except (duckdb.IOException, duckdb.OutOfMemoryException):
            folder = self._folder.parent
            raise ReportError(f"{folder}: expected more space for temporary files") from None

    def finish(self) -> None:
        """Count each session once. No chunk can be added after it."""
        self._flush()
        self._execute(f"""
            CREATE TABLE counted AS
            SELECT day, index, count(*)::BIGINT AS starts
            FROM (
                SELECT arg_min(day, rowid) AS day, arg_min(index, rowid) AS index
                FROM starts GROUP BY high, low
            )
            GROUP BY ALL;
            DROP TABLE starts;
            CREATE TABLE start_groups AS
            SELECT
                (DATE '1970-01-01' + day)::VARCHAR AS day,
                {", ".join(COLUMNS)},
                concat_ws('+', {_KINDS}) AS destinations,
                {_TOTAL} AS destination_count,
                starts
            FROM counted JOIN start_values USING (index);
            DROP TABLE counted;
            DROP TABLE start_values;
        """)
        ((self.starts,),) = self._query("SELECT coalesce(sum(starts), 0)::BIGINT FROM start_groups")

    def document(self, min_group: int) -> Document:
        """Return the document.

        Args:
            min_group: A row that stands for fewer starts is folded, except in `day`.
        """
        ((first, last),) = self._query("SELECT min(day), max(day) FROM start_groups")
        return Document(
            starts=self.starts,
            period=Period(first=first, last=last),
            records=Records(
                read=self._read,
                duplicate=self._added - self.starts,
                refused={name: self._refused[name] for name in REASONS if self._refused[name]},
                unreadable=self._unreadable,
            ),
            tables={
                name: self._table(columns, 1 if name == "day" else min_group)
                for name, columns in TABLES.items()
            },
        )

    def _table(self, columns: tuple[str, ...], min_group: int) -> Table:
        names = ", ".join(columns)
        order = [name for name in columns if name == "day"]
        order += ["starts DESC", *(name for name in columns if name != "day")]
        groups = f"(SELECT {names}, sum(starts)::BIGINT AS starts FROM start_groups GROUP BY ALL)"
        rows = self._query(f"FROM {groups} WHERE starts >= {min_group} ORDER BY {', '.join(order)}")
        ((folded, starts),) = self._query(
            f"SELECT count(*), coalesce(sum(starts), 0)::BIGINT "
            f"FROM {groups} WHERE starts < {min_group}"
        )
        return Table(
            rows=[dict(zip((*columns, "starts"), row, strict=True)) for row in rows],
            folded=Folded(groups=folded, starts=starts),
        )

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        return self._execute(statement).fetchall()

    def write_starts(self, format: str) -> Path:
        """Write the starts to a file in the folder, a row each, in an order that has no meaning.

        Args:
            format: ``csv`` or ``parquet``.
        """
        path = self._folder / f"starts.{format}"
        # Sorted by all columns, because the order of the records would tell more than the day.
        columns = ", ".join(("day", *COLUMNS))
        self._execute(f"""
            COPY (
                SELECT {columns.replace("day", "day::DATE AS day", 1)}
                FROM start_groups, range(start_groups.starts)
                ORDER BY {columns}
            ) TO {_quote(str(path))} (FORMAT {format}{", HEADER" if format == "csv" else ""})
        """)
        return path

    def close(self) -> None:
        """Close the database, so that its files can be removed."""
        self._database.close()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
