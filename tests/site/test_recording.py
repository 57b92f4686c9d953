"""The recording on README and the landing page shows the live page as it is: a digit is drawn and read."""

import io

import numpy as np
from hands import draw, place_of, read, settled, start
from PIL import Image
from shapes import STROKES

from conftest import opened
from tools.site.pages import RECORDING, STILL
from utils import ROOT, switch

SHOWN, LARGEST = (640, 442), 200_000  # bytes: the first view of the landing page has 300 KB


def shot(page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(SHOWN, Image.LANCZOS)


def record(page) -> None:
    """Draw a three by hand, and keep what is seen of it."""
    frames = [shot(page)]
    for points in place_of(page, STROKES[3]):
        page.mouse.move(*points[0])
        page.mouse.down()
        for n, point in enumerate(points):
            page.mouse.move(*point)
            if n % 2:
                settled(page)
                frames.append(shot(page))
        page.mouse.up()
    settled(page)
    first, *others, last = [*frames, shot(page)]
    how = {"duration": [120] * len(frames) + [3000], "loop": 0, "quality": 40, "method": 6}  # milliseconds
    first.save(ROOT / "pngs" / RECORDING, save_all=True, append_images=[*others, last], **how)
    last.save(ROOT / "pngs" / STILL, optimize=True)


def test_recording_is_that_of_the_page(browser, site):
    """COURSE_PUBLISH=1 records it again."""
    with opened(browser, site, reduced_motion="reduce") as page:
        page.set_viewport_size({"width": 1000, "height": 690})
        start(page, site)
        if switch("COURSE_PUBLISH"):
            record(page)
        else:
            draw(page, STROKES[3])
        assert read(page) == 3
        last = shot(page)
    recording = ROOT / "pngs" / RECORDING
    assert recording.stat().st_size < LARGEST
    with Image.open(recording) as kept, Image.open(ROOT / "pngs" / STILL) as still:
        assert kept.n_frames > 5 and kept.size == still.size == SHOWN
        kept.seek(kept.n_frames - 1)
        # fonts and their smoothing differ between machines; another layout, or another answer, moves more
        for one in (kept, still):
            assert np.abs(np.subtract(one.convert("RGB"), last, dtype=np.float32)).mean() < 12
