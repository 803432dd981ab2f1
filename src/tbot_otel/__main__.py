"""``python -m tbot_otel``: the command line."""

import sys

from tbot_otel.cli import main

sys.exit(main())
