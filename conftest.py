"""Plain pytest is the smoke run: notebooks' kernels inherit the variable. COURSE_SMOKE=0 runs everything in full."""

import os

os.environ.setdefault("COURSE_SMOKE", "1")
