"""Tells where the first part of the input is that was not understood."""

from tbot_otel.streams import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.report.parse import Chunk
    from tbot_otel.report.reader import Block


class UnreadableParts:
    """What was not understood of the files.

    Attributes:
        count: How many lines or messages, or parts of a line.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self._first = ""
        self._advice = ""
        self._path = ""
        self._position = 1

    def add(self, block: "Block", chunk: "Chunk") -> None:
        """Add a block. The blocks of a file follow each other."""
        if block.path != self._path:
            self._path, self._position = block.path, 1
        self.count += block.skipped + chunk.unreadable
        if self.count and not self._first:
            offset = 0
            if not block.skipped and chunk.first_unreadable:
                offset, self._advice = chunk.first_unreadable
            noun = "message" if block.is_framed else "line"
            self._first = f"{noun} {self._position + offset} of {printable(block.path)}"
        self._position += block.skipped + chunk.length

    def __str__(self) -> str:
        advice = f"; {self._advice}" if self._advice else ""
        parts = "1 part" if self.count == 1 else f"{self.count:,} parts"
        were = "was" if self.count == 1 else "were"
        return f"{parts} of the input {were} not understood, the first is {self._first}{advice}"
