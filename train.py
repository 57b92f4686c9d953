"""Train experiments of the course: `python train.py base dropout --seeds 5`. `--list` shows them all, `--help` every
flag."""

from tools import command  # isort: skip

import sys

from tools.train import main
from utils.training import ddp

if __name__ == "__main__":
    with ddp.process_group():
        status = command.run(
            "train.py", lambda argv: globals().update(main(argv)), sys.argv[1:], lambda: ddp.rank() == 0
        )
    command.finish(status)
