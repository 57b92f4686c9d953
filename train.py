"""Train experiments of the course: `python train.py base dropout --seeds 5`. `--list` shows them all, `--help` every flag."""

from tools import command  # isort: skip

import sys

from tools.train import main
from utils.training import ddp

if __name__ == "__main__":
    with ddp.joined():
        command.finish(command.run("train.py", lambda words: globals().update(main(words)), sys.argv[1:], lambda: ddp.rank() == 0))
