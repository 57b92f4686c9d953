"""One task of a cluster, in a process of its own: python -m tools.task DATA FINGERPRINT WORDS… (the words are train.py's)

It ends when the worker that started it does, so that no two processes do one run; and it refuses other data than the command's own.
"""

from tools import command  # isort: skip

import os
import threading
import time

import train
from utils import CourseError
from utils.data import datasets
from utils.runs import lock as locks


def end_with_the_worker() -> None:
    """Wait for the end of standard input, which the worker holds open as long as it lives; a checkpoint is written whole or not at all."""
    while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    os._exit(143)


def main(words: list[str]) -> None:
    threading.Thread(target=end_with_the_worker, daemon=True).start()
    name, fingerprint, *task = words
    found = datasets.load(name)
    if found.fingerprint != fingerprint:
        raise CourseError(f"this worker has other data for {name} (it found {found.name}): expected the same files as the command's")
    begun = time.monotonic()
    while True:
        try:
            return train.main(task)
        except locks.Held:  # by the process of a worker that died, perhaps on a machine that did: until it counts as dead
            if time.monotonic() - begun > 2 * locks.DEAD:
                raise
            time.sleep(1)


if __name__ == "__main__":
    command.main("train.py", main)
