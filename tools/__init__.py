"""What keeps the repository true, run as `python -m tools.NAME`. Nothing in utils/ imports from here."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  before anything is imported that an older Python can't run; train.py imports this first
    sys.exit("This is Python %d.%d, expected 3.10 or newer (README, Installation)." % sys.version_info[:2])  # noqa: UP031
