"""What keeps the repository true, run as `python -m tools.NAME`. Nothing in utils/ imports from here."""

import utils  # noqa: F401  before torch: it says how threads wait
