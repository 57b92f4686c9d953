"""In a mount namespace of its own: the course on a real file system of a few kilobytes, which grows by four pages from
run to run.

test_faults.py starts it as root of that namespace: unshare --map-root-user --mount python tests/small_disk.py FOLDER.
It prints how many runs, and how many builds of voxels, met a full disk.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny import TINY, few_voxels  # noqa: E402

from conftest import empty_repository  # noqa: E402
from utils import CourseError, runs  # noqa: E402
from utils.data import datasets, voxels  # noqa: E402

STEP = 16  # KiB, four pages


def mount(folder: Path, kilobytes: int, *options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join((*options, f"size={kilobytes}k")), "none", folder],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"no small disk: {' '.join(done.stderr.split())}")


def train() -> runs.Result:
    return runs.run(TINY, device="cpu", publish=True, echo=False)


def full_runs(disk: Path) -> int:
    """A run on a disk that is larger each time; each is continued on one that is large enough, and must end with the
    same bits."""
    expected = train().weights.read_bytes()
    rejected = 0
    for kilobytes in range(STEP, 1000, STEP):
        subprocess.run(["umount", disk], check=True)
        mount(disk, kilobytes)
        try:
            train()
            return rejected
        except CourseError as error:
            assert "No space left on device" in str(error) and "\n" not in str(error), error
            rejected += 1
        mount(disk, 1000, "remount")
        assert train().weights.read_bytes() == expected, f"other bits after {kilobytes} KiB"
        assert not list(disk.rglob(".*.pth.*")), "left behind"
    raise AssertionError("a run never ended")


def full_builds(disk: Path) -> int:
    """Voxels that can't be kept are used all the same, and leave no part of a file."""
    expected = None
    for rejected, kilobytes in enumerate(range(STEP, 2000, 4 * STEP)):
        subprocess.run(["umount", disk], check=True)
        mount(disk, kilobytes)
        expected = expected or datasets.load("mnist3d").fingerprint
        assert datasets.load("mnist3d").fingerprint == expected
        kept = [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size]
        if kept:
            assert kept == [disk / "data" / voxels.REBUILT] and voxels.read(kept[0])
            return rejected
    raise AssertionError("no build was ever kept")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    disk = folder / "disk"
    disk.mkdir()
    mount(disk, 1000)
    with pytest.MonkeyPatch.context() as patch:
        empty_repository(disk, patch)
        print("runs", full_runs(disk))
        few_voxels(folder, patch)
        patch.setattr(datasets, "ROOT", disk)
        print("builds", full_builds(disk))
