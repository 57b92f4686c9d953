"""A photograph or drawing of one digit → the 28×28 picture that MNIST would contain.

MNIST's digits were cut out, scaled so that the longer side is 20 pixels, averaged down, and moved until their center of
mass was in the middle (LeCun et al. 1998). A network reads a photograph only after the same steps:

    from utils.data import photo
    model(preprocess(photo.read("five.jpg"))).softmax(1)

`steps` keeps the intermediate pictures; `plain` is the resize that people try first.
"""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from .. import CourseError
from ..files import require_regular_file, shorten
from . import frames

BOX, SIDE, MIDDLE = 20, 28, 14  # pixels: the digit's longer side, the picture's, and where the center of mass goes
WORKING = 1000  # pixels: a larger photograph is first averaged down to a longer side of at most this
SMALLEST, LARGEST = 8, 80_000_000  # pixels: of the shorter side, and of the whole picture (below Pillow's own limit)
SMALL = 1_000_000  # pixels: of a picture that should be as small as MNIST's
LIGHT = {"1", "L", "P", "RGB", "I;16", "I;16B"}  # modes that take at most six bytes a pixel while a picture is read
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # only these: EPS, for example, would start a program
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation → its inverse Image.Transpose
CONTRAST = 0.04  # of the range from black to white: the least difference between ink and paper
THIN, PEN = 1.5, 2.0  # pixels of the 20: a stroke below THIN, which MNIST lacks, is widened to PEN
LONGEST = 4.5  # strokes' length over the digit's longer side: of 3,000 training digits the highest is 3.0
WIDEST = 1.9  # width over height: of 60,000 training digits one in 10,000 is above 2
GAP = 0.1  # of the largest part: strokes that are nearer belong together
WIDTHS = (1 / 3, 1 / 6, 1 / 10)  # of the picture: the least width of paper; the smaller ones if ink reaches the edge
DEEPEST = 0.2  # of the brightest paper: the deepest shadow that is corrected
NESTED = 5  # frames inside one another, at most
RIM = 0.05  # of the digit's longer side: the width of the picture's edge, where a shadow would leave it
EVEN = 0.8  # of the darkest ink's tone: lighter ink at the edge is no stroke
FAR = 0.4  # of the digit: the largest distance of a part that is too flat to be another digit
NOISE = "a page of noise or of writing, not one digit: crop the picture to a single digit on plain paper"


class Steps(NamedTuple):
    """What a picture becomes, in order; (H, W): of the photograph, averaged down if large, or of its frame's inside."""

    gray: np.ndarray  # (H, W) float32, 0 (black) to 1, upright
    paper: np.ndarray  # (H, W) float32: the same without narrow parts, the estimated background
    ink: np.ndarray  # (H, W) float32, 0 to 1: the difference from the paper, 1 for the ink's full tone
    digit: np.ndarray  # (H, W) bool: the digit's ink
    box: np.ndarray  # (20, 20) float32, 0 to 1: cut out and averaged down, longer side 20
    image: np.ndarray  # (28, 28) uint8: brightest 255, background 0, center of mass on pixel 14


def read(picture) -> np.ndarray:
    """A picture of one digit, as in MNIST: (28, 28) uint8, white on black, background exactly 0, brightest 255.

    picture: a path, an open file, or a PIL image of any size and mode; dark on light or light on dark; rotated as its
    EXIF says. Raises CourseError for a file that is no picture, or too small or too large, and without ink, for more
    than one digit, or for a page of noise.
    """
    return steps(picture).image


def plain(picture) -> np.ndarray:
    """For comparison: gray, resized to (28, 28) uint8, and nothing else. Raises CourseError like `read`."""
    image = Image.fromarray((gray(picture) * 255).round().astype(np.uint8))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def steps(picture) -> Steps:
    """The steps of `read`. Takes and raises the same."""
    light, paper, ink = _without_frames(gray(picture))
    digit = _one_digit(ink > 0.5)
    _require_even_tone(np.abs(paper - light), digit)
    box = _box(ink, digit)
    return Steps(light, paper, ink, digit, box, centered(box))


def gray(picture) -> np.ndarray:
    """A picture's brightness: (H, W) float32, 0 to 1, upright, on its paper, at most WORKING pixels long."""
    image = open_picture(picture)
    few = -(-max(image.size) // WORKING)
    if image.mode[0] in "IF":  # 16 bits, 32 bits or floats, in any range
        values = np.asarray(image.convert("F").reduce(few), np.float64)
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise CourseError(f"{_name(picture)} holds no finite number: expected the brightness of each pixel")
        low, high = finite.min(), finite.max()
        return ((np.clip(np.nan_to_num(values, nan=low), low, high) - low) / max(high - low, 1e-12)).astype(np.float32)
    image = _on_paper(image.convert("RGBA")) if image.has_transparency_data else image
    return np.asarray(_as_gray(image).reduce(few), np.float32) / 255


def tones(picture) -> np.ndarray:
    """The tones of a picture that is already like MNIST's, white on black: (H, W) uint8, or float32 if it has floats.

    picture: a path, file or PIL image of any mode. Ink on a transparent ground becomes white. Raises CourseError.
    """
    image = open_picture(picture, SMALL)
    if image.mode[0] == "F":
        return np.array(image, np.float32)
    if image.mode[0] == "I":
        values = np.array(image, np.int64)
        if values.min() < 0 or values.max() >= 2**16:
            found = f"{_name(picture)} has values from {values.min()} to {values.max()}"
            raise CourseError(f"{found}: expected 0 to 255, or to 65,535")
        return (values if values.max() < 256 else np.rint(values / 257)).astype(np.uint8)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        gray = np.array(_on_paper(image).convert("L"))
        drawn = np.median(np.asarray(image.getchannel("A"))) < 128  # most is transparent: the alpha holds the ink
        return 255 - gray if drawn and _ground(image) == 255 else gray
    return np.array(_as_gray(image))


def _as_gray(image: Image.Image) -> Image.Image:
    return (image if image.mode in ("1", "L") else image.convert("RGB")).convert("L")


def _name(picture) -> str:
    return shorten(picture) if isinstance(picture, str | os.PathLike) else "the picture"


def open_picture(picture, largest: int = LARGEST) -> Image.Image:
    """A path, file or PIL image → an upright PIL image of a usable size, with its pixels loaded. Raises CourseError.

    largest: pixels of a picture that needs little memory; of others a quarter.
    """
    what = _name(picture)
    if isinstance(picture, str | os.PathLike):
        require_regular_file(Path(picture), "Save the picture as PNG or JPEG.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged metadata and of its own limit, which is higher
            image = picture if isinstance(picture, Image.Image) else Image.open(picture, formats=FORMATS)
            size = f"{image.width} × {image.height} pixels"
            most = largest if image.mode in LIGHT and not image.has_transparency_data else largest // 4
            if image.width * image.height > most:
                raise CourseError(f"{what} has {size} ({image.mode}): expected at most {most:,}. Make it smaller.")
            image.load()
            image = _upright(image)
            image = image.convert(image.mode.upper()) if image.mode in ("La", "RGBa") else image  # premultiplied
    except CourseError:
        raise
    except FileNotFoundError as error:
        raise CourseError(f"{what} is missing: expected the path of a picture, from {Path.cwd()}") from error
    except (UnidentifiedImageError, AttributeError, TypeError) as error:
        found = "" if isinstance(picture, str | os.PathLike) else f" ({type(picture).__name__})"
        raise CourseError(f"{what}{found} is not a picture: expected {', '.join(FORMATS)} or a PIL image") from error
    except Exception as error:  # a damaged file can raise anything
        reason = shorten(getattr(error, "strerror", None) or error)
        raise CourseError(f"{what} can't be read as a picture ({reason}): save it again, as PNG or JPEG") from error
    if min(image.size) < SMALLEST:
        raise CourseError(f"{what} has {size}, too small: expected at least {SMALLEST} × {SMALLEST}")
    return image


def _upright(image: Image.Image) -> Image.Image:
    """A picture, turned as its EXIF data say."""
    try:
        turn = TURNS.get(image.getexif().get(0x0112))
    except Exception:  # damaged EXIF data can raise anything, and the picture can be read without them
        turn = None
    return image if turn is None else image.transpose(turn)


def _ground(image: Image.Image) -> int:
    """The tone for transparent parts: the picture's own paper, or white under dark and black under light ink."""
    opaque = np.asarray(image.getchannel("A")) > 127
    tone = np.median(np.asarray(image.convert("L"))[opaque]) if opaque.any() else 0
    return int(tone) if opaque.mean() > 0.5 else 255 * int(tone < 128)


def _on_paper(image: Image.Image) -> Image.Image:
    """An RGBA picture with its transparent parts filled with its ground."""
    return Image.alpha_composite(Image.new("RGBA", image.size, (_ground(image),) * 3 + (255,)), image)


def _without_frames(light: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A gray picture, its paper and its ink; only the inside of a frame, if there is one. Raises CourseError."""
    paper, ink = _ink(light)
    for _ in range(NESTED):
        frame = frames.find(ink > 0.5)
        if frame is None:
            return light, paper, ink
        if frame.touched or not frame.inside.any():
            todo = "crop the picture to the inside of the frame"
            raise CourseError(f"{frame.name} touches the digit, or is part of it: {todo}")
        rows, columns = (np.flatnonzero(frame.inside.any(axis)) for axis in (1, 0))
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        light = np.where(frame.inside, light, paper)[window]
        try:
            paper, ink = _ink(light)
        except CourseError as error:
            raise CourseError(f"{frame.name} without a digit in it ({error})") from error
    raise CourseError("too many frames, one inside the other: crop the picture to the digit")


def _ink(light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paper and ink of a gray picture.

    The paper is the picture without parts narrower than a third of it: a gray closing removes dark ink, an opening
    light ink, and the right one is more even. Shadows and the edge of the desk stay paper.
    """
    smooth = ndimage.gaussian_filter(light, max(light.shape) / 400 if max(light.shape) > 100 else 0)
    usual, *narrow = (max(5, int(max(min(light.shape), 0.75 * max(light.shape)) * share)) for share in WIDTHS)
    paper, above, gain = _above(smooth, usual)
    if _at_edge(above):  # perhaps a narrow shadow, which is paper
        found = next((one for one in (_above(smooth, size) for size in narrow) if not _at_edge(one[1])), None)
        paper, above, gain = found or (paper, above, gain)
    if above.max() < CONTRAST:
        todo = "Write the digit darker, or move the camera closer."
        raise CourseError(f"no ink found: the picture is of one tone. {todo}")
    marks = above[above > _otsu(above)]
    tone = np.percentile(marks, 75)
    noise = np.median(np.abs(ndimage.laplace(light)) * gain) / 3
    if tone < max(CONTRAST, 2.5 * noise):
        todo = "Write the digit darker, or photograph it in better light."
        raise CourseError(f"no ink found: nothing stands out from the paper. {todo}")
    # a ramp around half the tone, flat for paper and full ink
    return paper, np.clip(1.5 * above / tone - 0.25, 0, 1)


def _above(smooth: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paper of a smoothed picture, without parts narrower than `size` pixels; each pixel's difference from it; and
    how much brighter the best-lit paper is. A shadow on light paper takes the same share of light from paper and
    ink."""
    closed, opened = (_wide(operation, smooth, size) for operation in ("closing", "opening"))
    paper = min(closed, opened, key=np.std)
    brightest = max(paper.max(), CONTRAST)
    gain = brightest / np.maximum(paper, DEEPEST * brightest) if paper is closed else np.ones_like(paper)
    return paper, np.abs(paper - smooth) * gain, gain


def _at_edge(above: np.ndarray) -> bool:
    """Whether there is ink at the edge of the picture."""
    if above.max() < CONTRAST:
        return False
    ink = above > _otsu(above)
    return bool(ink[0].any() or ink[-1].any() or ink[:, 0].any() or ink[:, -1].any())


def _wide(operation: str, light: np.ndarray, size: int) -> np.ndarray:
    """A gray closing or opening by a large square, on a picture averaged down to some 200 pixels."""
    few = max(1, max(light.shape) // 200)
    image = np.asarray(Image.fromarray(light).reduce(few))
    filtered = getattr(ndimage, f"grey_{operation}")(image, size=max(3, size // few), mode="nearest")
    return np.asarray(Image.fromarray(filtered).resize(light.shape[::-1], Image.Resampling.BILINEAR))


def _otsu(values: np.ndarray) -> float:
    """The threshold that splits values from 0 up into the two groups of the least spread (Otsu 1979)."""
    top = float(values.max())
    counts = np.bincount((values.ravel() * (255 / top)).astype(np.int64), minlength=256)
    middles, low = (np.arange(256) + 0.5) * top / 255, np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    high = low[-1] - low
    between = low * high * (sums / np.maximum(low, 1) - (sums[-1] - sums) / np.maximum(high, 1)) ** 2
    return float(middles[between.argmax()])


def _one_digit(ink: np.ndarray) -> np.ndarray:
    """The digit in a (H, W) bool mask: strokes near each other, without specks and ink along the edge."""
    groups, areas, highs, wides = _groups(ink)
    edges = [groups[0], groups[-1], groups[:, 0], groups[:, -1]]
    along = np.max([np.bincount(edge, minlength=len(areas) + 1)[1:] / len(edge) for edge in edges], 0)
    areas = areas * (along < 0.8)  # a shadow, the rim of the sheet
    if areas.max() == 0:
        raise CourseError("no ink found inside the picture, only along its edge: leave some paper around the digit")
    if (inside := areas * (along == 0)).max() >= 0.1 * areas.max():
        areas = inside
    main = areas.argmax()
    tall = max(highs[main], wides[main])
    parts = areas > 0.1 * areas[main]
    if parts.sum() > 1 and (parts.sum() > 12 or areas[main] < 0.2 * areas.sum()):
        raise CourseError(NOISE)
    if (several := (parts & (highs > 0.45 * highs[main])).sum()) > 1:
        raise CourseError(f"more than one digit: {several} separate shapes. Crop the picture to one of them.")
    distance = ndimage.distance_transform_edt(groups != main + 1)
    # also the bar of a 5 in two strokes
    near = [k for k in np.nonzero(parts)[0] if distance[groups == k + 1].min() < FAR * tall]
    digit = np.isin(groups, [k + 1 for k in near])
    rows, columns = np.nonzero(digit)
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    if max(high, wide) < SMALLEST:
        raise CourseError(f"the ink is {wide} × {high} pixels, too small to read: move the camera closer")
    if digit.sum() / _width(digit) > LONGEST * max(high, wide):
        raise CourseError(NOISE)
    if wide > WIDEST * high:
        what = f"more than one digit, or one that lies on its side: the ink is {wide} × {high} pixels"
        raise CourseError(f"{what}. Crop or turn the picture.")
    return digit


def _require_even_tone(above: np.ndarray, digit: np.ndarray) -> None:
    """Raise CourseError if lighter ink reaches the edge: a narrow shadow or a line crosses the digit."""
    rim = np.ones_like(digit)
    deep = max(2, round(RIM * max(np.ptp(places) + 1 for places in np.nonzero(digit))))
    rim[deep:-deep, deep:-deep] = False
    if sum(edge.any() for edge in (digit[0], digit[-1], digit[:, 0], digit[:, -1])) < 2:
        return
    if np.percentile(above[digit & rim], 95) < EVEN * np.percentile(above[digit], 98):
        todo = "photograph it in even light, on plain paper"
        raise CourseError(f"a shadow or a line crosses the digit from edge to edge: {todo}")


def _groups(ink: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Strokes joined over gaps below GAP: labels 1… where there is ink, (H, W); pixels, height and width of each."""
    parts, _ = ndimage.label(ink, np.ones((3, 3)))
    tall = max(part.stop - part.start for box in ndimage.find_objects(parts) for part in box)
    near = ndimage.distance_transform_edt(~ink) <= max(GAP / 2 * tall, 1.5)
    groups = ndimage.label(near, np.ones((3, 3)))[0] * ink
    places = ndimage.find_objects(groups)
    highs, wides = (np.array([place[axis].stop - place[axis].start for place in places]) for axis in range(2))
    return groups, np.bincount(groups.ravel())[1:], highs, wides


def _width(ink: np.ndarray) -> float:
    """The mean width of a mask's strokes: in a long bar, four times the mean distance to the edge."""
    inside = np.pad(ink, 1)
    return 4 * float(ndimage.distance_transform_edt(inside)[inside].mean()) - 1 if ink.any() else 0.0


def _box(ink: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """The digit in the middle of a square as large as its longer side, averaged down to (20, 20), 0 to 1."""
    longer = max(np.ptp(places) + 1 for places in np.nonzero(digit))
    width = _width(digit) * BOX / longer
    if width < THIN:  # a ballpoint pen, which averaging would fade
        grow = (PEN - width) / 2 * longer / BOX
        margin = int(np.ceil(grow)) + 1
        digit = ndimage.distance_transform_edt(~np.pad(digit, margin)) <= grow
        tones = digit.astype(np.float32)
    else:
        tones = ink * ndimage.binary_dilation(digit, np.ones((3, 3)), iterations=max(1, longer // 100))
    rows, columns = np.nonzero(digit)
    (top, bottom), (left, right) = ((places.min(), places.max() + 1) for places in (rows, columns))
    longer = max(bottom - top, right - left)
    margin, step = longer + 1, longer / BOX  # so that the square is inside, wherever the digit is
    # the shorter side starts on a whole pixel of the 20, too: a digit of this size stays as it is
    sides = ((left, right - left), (top, bottom - top))
    start = [low + margin - step * ((longer - extent) / 2 // step) for low, extent in sides]
    square = (*start, start[0] + longer, start[1] + longer)
    image = Image.fromarray(np.pad(tones, margin).astype(np.float32))
    how = Image.Resampling.BOX if longer > BOX else Image.Resampling.BILINEAR
    return np.clip(np.asarray(image.resize((BOX, BOX), how, square)), 0, 1)


def centered(box: np.ndarray) -> np.ndarray:
    """A (20, 20) box of ink → (28, 28) uint8: brightest 255, center of mass on pixel 14, or as near as possible."""
    bright = np.floor(box / box.max() * 255 + 0.5).astype(np.uint8)
    mass = box.sum(dtype=np.float64)
    center = [(box.sum(1 - axis, dtype=np.float64) * np.arange(BOX)).sum() / mass for axis in range(2)]
    top, left = (int(np.clip(np.floor(MIDDLE - place + 0.5), 0, SIDE - BOX)) for place in center)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + BOX, left : left + BOX] = bright
    return image
