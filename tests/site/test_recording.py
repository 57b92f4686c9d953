"""The recording on README and the landing page shows the live page as it is: a digit is drawn and read."""

import io

import numpy as np
from hands import STROKES, draw, place_of, read, settled, start
from PIL import Image

from conftest import opened
from tools.site.pages import RECORDING, STILL
from utils import ROOT, switch

SIZE = {"width": 1000, "height": 690}
SHOWN = (640, 442)
LARGEST = 200_000  # bytes: the first view of the landing page has 300 KB
PUBLISHED = switch("COURSE_PUBLISH")
SAVING = {"quality": 40, "method": 6}


def recorded(page, site) -> list[Image.Image]:
    """Frames of a three being drawn by hand, and of the answers to it; if nothing is to be published, only the last."""
    page.set_viewport_size(SIZE)
    start(page, site)
    frames = []

    def frame():
        frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(SHOWN, Image.LANCZOS))

    if not PUBLISHED:
        draw(page, STROKES[3])
        frame()
        return frames
    frame()
    for points in place_of(page, STROKES[3]):
        page.mouse.move(*points[0])
        page.mouse.down()
        for n, point in enumerate(points):
            page.mouse.move(*point)
            if n % 2:
                settled(page)
                frame()
        page.mouse.up()
    settled(page)
    frame()
    return frames


def test_recording_is_that_of_the_page(browser, site):
    with opened(browser, site, reduced_motion="reduce") as page:
        frames = recorded(page, site)
        assert read(page) == 3
    folder = ROOT / "pngs"
    if PUBLISHED:
        times = [120] * (len(frames) - 1) + [3000]  # milliseconds
        frames[0].save(folder / RECORDING, save_all=True, append_images=frames[1:], duration=times, loop=0, **SAVING)
        frames[-1].save(folder / STILL, optimize=True)
    assert (folder / RECORDING).stat().st_size < LARGEST
    with Image.open(folder / RECORDING) as kept, Image.open(folder / STILL) as still:
        assert kept.n_frames > 5 and kept.size == still.size == SHOWN
        kept.seek(kept.n_frames - 1)
        # fonts and their smoothing differ between machines; another layout, or another answer, moves more
        for one in (kept, still):
            assert np.abs(np.subtract(one.convert("RGB"), frames[-1], dtype=np.float32)).mean() < 12
