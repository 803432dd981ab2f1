"""Counts starts, each session once, with bounded memory."""

import os
from array import array
from collections import Counter
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from tbot_otel.registry import START
from tbot_otel.report.build import Counts, build
from tbot_otel.report.changes import MAX_DAYS
from tbot_otel.report.document import DESTINATION_KINDS, REASONS, TABLES, Document
from tbot_otel.report.folding import Cells
from tbot_otel.report.inputs import ReportError
from tbot_otel.report.parquet import INT32, TEXT, UUID, encode_texts, write_parquet
from tbot_otel.report.parse import COLUMNS, Chunk, Values

if TYPE_CHECKING:
    from tbot_otel.report.document import Records
    from tbot_otel.report.parquet import Kind

MEMORY_LIMIT_MIB: Final = 256
"""What DuckDB may take. The rest goes to files in its temporary folder."""

# Memory for the indexes of distinct values, and for starts that are not in DuckDB yet.
_MAX_INDEXES = 100_000
_MAX_PENDING = 200_000
# Of a table. A stranger can post starts with a version each.
_MAX_ROWS = 10_000
_MAX_VALUES = 1_000

_COUNTS = {attribute.name for attribute in START.attributes if attribute.type == "int"}
_TYPES = {column: "USMALLINT" if f"tbot.{column}" in _COUNTS else "VARCHAR" for column in COLUMNS}
_KINDS = ", ".join(
    f"CASE WHEN destinations_{kind} > 0 THEN '{kind}' END" for kind in DESTINATION_KINDS
)
_TOTAL = " + ".join(f"destinations_{kind}::INTEGER" for kind in DESTINATION_KINDS)


class StartCounter:
    """Counts starts.

    Args:
        folder: A private folder for temporary files.

    Attributes:
        starts: How many starts there are, once they are counted.
    """

    def __init__(self, folder: Path) -> None:
        self.starts: int = 0
        self._folder = folder
        self._indexes: dict[Values, int] = {}
        self._next_index = 0
        self._session_ids = bytearray()
        self._days = array("i")
        self._start_indexes = array("i")
        self._file_numbers = count()
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
            CREATE TABLE starts (session UUID, day INTEGER, index INTEGER);
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
        indexes = self._add_values(chunk.values)
        self._session_ids += chunk.session_ids
        self._days += chunk.days
        self._start_indexes.extend(map(indexes.__getitem__, chunk.indexes))
        self._added += len(chunk.days)
        if len(self._days) >= _MAX_PENDING:
            self._flush()

    def _add_values(self, values: list[Values]) -> list[int]:
        """Return the index of each."""
        if len(self._indexes) > _MAX_INDEXES:
            # The same values can have two indexes.
            self._indexes.clear()
        # Different texts can decode to the same values.
        new = dict.fromkeys(item for item in values if item not in self._indexes)
        first = self._next_index
        self._next_index += len(new)
        self._indexes.update(zip(new, range(first, self._next_index), strict=True))
        if new:
            indexes = array("i", range(first, self._next_index)).tobytes()
            columns: dict[str, tuple[Kind, bytes]] = {"index": (INT32, indexes)}
            for (name, kind), column in zip(_TYPES.items(), zip(*new, strict=True), strict=True):
                if kind == "VARCHAR":
                    columns[name] = TEXT, encode_texts(map(str, column))
                else:
                    columns[name] = INT32, array("i", map(int, column)).tobytes()
            self._insert("start_values", len(new), columns)
        return [self._indexes[item] for item in values]

    def _flush(self) -> None:
        if self._days:
            columns: dict[str, tuple[Kind, bytes]] = {
                "session": (UUID, bytes(self._session_ids)),
                "day": (INT32, self._days.tobytes()),
                "index": (INT32, self._start_indexes.tobytes()),
            }
            self._insert("starts", len(self._days), columns)
            self._session_ids = bytearray()
            self._days = array("i")
            self._start_indexes = array("i")

    def _insert(self, table: str, rows: int, columns: "dict[str, tuple[Kind, bytes]]") -> None:
        # DuckDB can remember a file by its name.
        path = self._folder / f"{table}-{next(self._file_numbers)}.parquet"
        try:
            write_parquet(path, rows, columns)
        except OSError:
            raise self._space_error() from None
        self._execute(f"INSERT INTO {table} FROM read_parquet({_quote(str(path))})")
        path.unlink()

    def _execute(self, statement: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._database.execute(statement)
        except (duckdb.IOException, duckdb.OutOfMemoryException):
            raise self._space_error() from None

    def _space_error(self) -> ReportError:
        return ReportError(f"{self._folder.parent}: temporary files need more space or memory")

    def finish(self) -> None:
        """Count each session once. No chunk can be added after it."""
        self._flush()
        self._execute(f"""
            CREATE TABLE counted AS
            SELECT day, index, count(*)::BIGINT AS starts
            FROM (
                SELECT arg_min(day, rowid) AS day, arg_min(index, rowid) AS index
                FROM starts GROUP BY session
            )
            GROUP BY ALL;
            DROP TABLE starts;
            CREATE TABLE start_groups AS
            SELECT
                DATE '1970-01-01' + day AS day,
                {", ".join(COLUMNS)},
                concat_ws('+', {_KINDS}) AS destinations,
                {_TOTAL} AS destination_count,
                starts
            FROM counted JOIN start_values USING (index);
            DROP TABLE counted;
            DROP TABLE start_values;
        """)
        ((starts,),) = self._query("SELECT coalesce(sum(starts), 0)::BIGINT FROM start_groups")
        self.starts = starts

    def document(
        self, min_group: int, compare_since: date | None = None, today: date | None = None
    ) -> Document:
        """Return the document.

        Args:
            min_group: See `build`.
            compare_since: See `build`.
            today: The day after which a start is from the future; by default this one.
        """
        today = today or datetime.now(UTC).date()
        days = dict(self._query("SELECT day, sum(starts)::BIGINT FROM start_groups GROUP BY day"))
        records: Records = {
            "read": self._read,
            "duplicate": self._added - self.starts,
            "refused": {name: self._refused[name] for name in REASONS if self._refused[name]},
            "unreadable": self._unreadable,
            "future": sum(starts for day, starts in days.items() if day > today),
        }
        has_days = not days or (max(days) - min(days)).days <= MAX_DAYS
        day = "day" if has_days else "date_trunc('year', day)::DATE"
        tables = ("helper_version", "destinations", "host_arch")
        by_value = ("version", "helper", "os_type")
        counts = Counts(
            days=days,
            use_cases=self._count(day, *TABLES["use_case"]),
            values={column: self._count(day, _common(column)) for column in by_value},
            distinct={name: self._count_distinct(*TABLES[name]) for name in (*by_value, *tables)},
            tables={name: self._count(*TABLES[name], limit=_MAX_ROWS) for name in tables},
            has_days=has_days,
        )
        return build(counts, records, min_group, compare_since)

    def _count_distinct(self, *columns: str) -> int:
        distinct = f"SELECT DISTINCT {', '.join(columns)} FROM start_groups"
        ((number,),) = self._query(f"SELECT count(*) FROM ({distinct})")
        return int(number)

    def _count(self, *columns: str, limit: int | None = None) -> Cells:
        rows = self._query(
            f"SELECT {', '.join(columns)}, sum(starts)::BIGINT AS starts FROM start_groups "
            f"GROUP BY ALL{f' ORDER BY starts DESC LIMIT {limit}' if limit else ''}"
        )
        return {tuple(values): starts for *values, starts in rows}

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
                SELECT {columns}
                FROM start_groups, range(start_groups.starts)
                ORDER BY {columns}
            ) TO {_quote(str(path))} (FORMAT {format}{", HEADER" if format == "csv" else ""})
        """)
        return path

    def close(self) -> None:
        """Close the database, so that its files can be removed."""
        self._database.close()


def _common(column: str) -> str:
    """Return an expression for a column in which rare values are NULL, if there are very many."""
    values = f"SELECT {column} FROM start_groups GROUP BY ALL ORDER BY sum(starts) DESC"
    return f"CASE WHEN {column} IN ({values} LIMIT {_MAX_VALUES}) THEN {column} END"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
