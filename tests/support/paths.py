"""The folders of the checkout."""

from pathlib import Path

TESTS: Path = Path(__file__).parents[1]
ROOT: Path = TESTS.parent
