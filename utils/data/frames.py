"""Frames around a digit: form cells, circles, screenshot borders, ruled lines. Which part of a picture is inside?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

EIGHT = np.ones((3, 3))  # neighbors in all eight directions
SMALLEST = 12  # pixels: a smaller shape is no frame
FEW = 400  # pixels: shapes are compared on masks reduced to a longer side of at most about this
GAP = 0.3  # of a frame's longer side: a gap of up to twice this does not open it
SMALL = 0.2  # of a hole's longer side: a smaller shape inside it is a speck or a dot
BAND = 0.12  # of the shorter side of all ink: lines lie this near its border, also if they are slightly rotated
COVERED = 0.35  # share of a side that the dashes of a broken line cover
LONGER = 1.35  # a single line must be this much longer than the digit beside it to be a line of the paper
RECTANGLE, CIRCLE, LINE = "a rectangular frame", "a circle", "the line of a frame"
OVERLAP = {RECTANGLE: 0.93, CIRCLE: 0.95}  # of an outline with a rectangle, and with an ellipse
ATTACHED = {RECTANGLE: 0.02, CIRCLE: 0.08}  # share of the inside that other strokes cover: then they touch the frame
GRID = 40  # pixels: circles are looked for on masks with a longer side of this
CROSSED = 0.25  # share of a circle's inside covered by strokes across it; zeros and loops of digits are emptier
RING = 0.3  # of the smaller radius: a thicker circle is a bold zero
STRAIGHT = 0.97  # share of a side that a line of an open frame covers; handwriting is rarely that straight
BESIDE = 0.33  # share of all ink beside the lines of an open frame; a seven has less


class Frame(NamedTuple):
    """A frame: its name for messages, its ink and its inside, both (H, W) bool, and whether the digit touches it."""

    name: str
    ink: np.ndarray
    inside: np.ndarray
    touched: bool = False


def find(ink: np.ndarray) -> Frame | None:
    """The outermost frame in a (H, W) bool mask of ink, or None.

    A shape that encloses a second one is a frame. So are lines along the border of all ink with other ink between them,
    and a rectangle alone. A ring alone is a zero, unless other strokes touch it from inside.
    """
    if not ink.any():
        return None
    window = ndimage.find_objects(ink.astype(np.int8))[0]
    step = max(1, -(-_longer(window) // FEW))
    parts, _ = ndimage.label(_reduced(ink[window], step), EIGHT)
    edges = [(window[i].start == 0, window[i].stop == ink.shape[i]) for i in range(2)]
    boxes = ndimage.find_objects(parts)
    longer = np.array([_longer(box) for box in boxes])
    largest = [k for k in np.argsort(-longer)[:60] if longer[k] >= max(3, 0.05 * longer.max())]
    if not largest or longer.max() < SMALLEST:
        return None
    found = _enclosing(parts, longer, largest, edges) or _lines(parts, boxes, largest)
    found = found or _alone(parts == largest[0] + 1, edges)
    if found is None:
        return None
    frame = np.zeros_like(ink)
    inside = np.full_like(ink, found.name == LINE)  # outside of all ink is beside a line
    for mask, small in ((frame, found.ink), (inside, found.inside)):
        mask[window] = small.repeat(step, 0).repeat(step, 1)[: ink[window].shape[0], : ink[window].shape[1]]
    frame &= ink
    halo = ndimage.binary_dilation(frame, EIGHT, iterations=2) & ~(ink & ~frame)
    return found._replace(ink=frame, inside=inside & ~halo)


def _cropped(ink: np.ndarray) -> np.ndarray:
    """A mask without the empty rows and columns around its ink."""
    return ink[ndimage.find_objects(ink.astype(np.int8))[0]]


def _rotated(ink: np.ndarray, angles: range) -> Iterator[np.ndarray]:
    """A shape rotated by several angles in degrees, each cropped to its ink."""
    for angle in angles:
        turned = ndimage.rotate(ink, angle, order=0) if angle else ink
        if turned.any():  # of a line one pixel wide, rotation can leave nothing
            yield _cropped(turned)


def _longer(box: tuple[slice, slice]) -> int:
    return max(box[0].stop - box[0].start, box[1].stop - box[1].start)


def _reduced(mask: np.ndarray, step: int) -> np.ndarray:
    """(H, W) bool → one pixel for each square of `step` pixels, set if any of them is."""
    padded = np.pad(mask, [(0, -side % step) for side in mask.shape])
    return padded.reshape(padded.shape[0] // step, step, -1, step).any((1, 3))


def _walled(ink: np.ndarray, edges: list[tuple[bool, bool]]) -> np.ndarray:
    """A shape, with the picture's edge as a line between the first and the last place where the shape touches it."""
    walled = ink.copy()
    for side, at_edge in zip((walled[0], walled[-1], walled[:, 0], walled[:, -1]), (*edges[0], *edges[1]), strict=True):
        if at_edge and side.any():
            places = np.flatnonzero(side)
            side[places[0] : places[-1] + 1] = True
    return walled


def _filled(ink: np.ndarray, radius: float) -> np.ndarray:
    """A shape with its holes, also those with a gap of up to twice the radius."""
    margin = int(radius) + 2
    padded = np.pad(ink, margin)
    near = ndimage.distance_transform_edt(~padded) <= radius
    closed = ndimage.distance_transform_edt(ndimage.binary_fill_holes(near)) > radius
    return (closed | ndimage.binary_fill_holes(padded))[margin:-margin, margin:-margin]


def _enclosing(parts: np.ndarray, longer: np.ndarray, largest: list[int], edges: list) -> Frame | None:
    """A single shape, perhaps with a gap, that has another one inside."""
    for outer in largest:
        smaller = [k for k in largest if longer[k] < longer[outer]]
        smaller = [k for k in smaller if not _is_dot(parts == k + 1, longer[k], longer[outer])]
        ink = parts == outer + 1
        for radius in (0, GAP * longer[outer]) if smaller else ():
            inside = _filled(_walled(ink, edges), radius) & ~ink
            holes, _ = ndimage.label(inside)
            sizes = [_longer(box) for box in ndimage.find_objects(holes)]
            for k in smaller:
                around = holes[parts == k + 1]
                if around.all() and longer[k] >= SMALL * sizes[around[0] - 1]:
                    return Frame("a frame", ink, inside)
    return None


def _is_dot(ink: np.ndarray, longer: int, outer: int) -> bool:
    """Whether a shape is a small blob, like the dot in a printed zero; only an upright one fills its box as well."""
    rows, columns = (np.ptp(places) + 1 for places in np.nonzero(ink))
    return longer < 0.5 * outer and ink.sum() > 0.6 * rows * columns and longer < 2.5 * min(rows, columns)


def _lines(parts: np.ndarray, boxes: list, largest: list[int]) -> Frame | None:
    """Lines along the border of all ink, with other ink between them, or beside them and shorter."""
    of = [boxes[k] for k in largest]
    (top, bottom), (left, right) = ((min(box[i].start for box in of), max(box[i].stop for box in of)) for i in range(2))
    band = max(2, round(BAND * min(bottom - top, right - left)))
    ring = np.ones(parts.shape, bool)
    ring[top + band : bottom - band, left + band : right - band] = False
    lines = [k for k in largest if ring[boxes[k]][parts[boxes[k]] == k + 1].all()]
    rest = [boxes[k] for k in largest if k not in lines]
    if not lines or not rest:
        return None
    ink = np.isin(parts, [k + 1 for k in lines])
    window = ink[top:bottom, left:right]
    sides = [window[:band].any(0), window[-band:].any(0), window[:, :band].any(1), window[:, -band:].any(1)]
    covered = [side.mean() > COVERED for side in sides]
    digit = max(max(box[i].stop for box in rest) - min(box[i].start for box in rest) for i in range(2))
    long = max(_longer(boxes[k]) for k in lines)
    corner = any(covered[:2]) and any(covered[2:])
    if sum(covered) >= 3 or long > LONGER * digit or (corner and len(lines) == 1 and long > digit):
        return Frame(LINE, ink, ~ink)
    return None


def _alone(ink: np.ndarray, edges: list) -> Frame | None:
    """A rectangle, whatever is in it, or a circle that other strokes touch from inside."""
    straight = _straight_sides(ink)
    filled = ndimage.binary_fill_holes(_walled(ink, edges) if straight >= 3 else ink)
    hollow = (filled & ~ink).sum() / filled.sum()
    for name, looks_like, reach in ((RECTANGLE, _is_rectangle, 0), (CIRCLE, _is_ellipse, 0.5)) if hollow > 0.05 else ():
        body = _opened(filled, reach)
        if looks_like(body):
            depth = ndimage.distance_transform_edt(np.pad(body, 1))[1:-1, 1:-1]
            levels = depth.astype(int)
            share = np.bincount(levels[body], ink[body]) / np.maximum(np.bincount(levels[body]), 1)
            thick = int(np.argmax(share[1:] < 0.6)) + 1  # from this depth on, most is paper
            within = depth > 1.25 * thick + 1
            touched = bool(within.any() and ink[within].mean() > ATTACHED[name])
            if touched or name == RECTANGLE:  # an untouched circle is a zero, or the loop of a nine
                return Frame(name, ink, within & ~ink, touched)
    boxed = straight >= (3 if hollow > 0.4 and max(_cropped(ink).shape) > 100 else 4)
    if boxed and hollow > 0.05:
        return Frame(RECTANGLE, ink, filled, touched=True)
    found = CIRCLE if _has_crossed_circle(ink) else LINE if _has_corner(ink) else None
    return found and Frame(found, ink, filled, touched=True)


def _has_crossed_circle(ink: np.ndarray) -> bool:
    """Whether a shape has a closed circle (or a similar ellipse) with strokes across its inside."""
    ink = _cropped(ink)
    size = [max(1, round(side * GRID / max(ink.shape))) for side in ink.shape[::-1]]
    mask = np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size, Image.Resampling.BOX)) > 0.4
    mask = np.pad(mask, 2)
    (high, wide), angles = mask.shape, np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radii, least = np.arange(0.3 * GRID, 0.52 * GRID), 0.3 * GRID
    tried = np.meshgrid(radii, radii, np.arange(least, high - least), np.arange(least, wide - least), indexing="ij")
    a, b, down, right = (values.reshape(-1, 1) for values in tried)
    within = (abs(down - high / 2) + a <= high / 2) & (abs(right - wide / 2) + b <= wide / 2)
    fits = within & (np.maximum(a, b) <= 1.35 * np.minimum(a, b))
    a, b, down, right = (values[fits, None] for values in (a, b, down, right))

    def covered(inward: int) -> np.ndarray:
        rows, columns = down + (a - inward) * np.sin(angles), right + (b - inward) * np.cos(angles)
        return mask[rows.astype(int).clip(0, high - 1), columns.astype(int).clip(0, wide - 1)].mean(1)

    closed = (covered(0) >= 0.98) & (covered(-3) <= 0.5)  # paper outside: bold zeros have ink there
    if not closed.any():
        return False
    a, b, down, right = (values[closed] for values in (a, b, down, right))
    thick = (np.array([*(covered(inward) for inward in range(1, 12)), np.zeros(len(a))]) < 0.55).argmax(0)
    best = thick.argmin()
    a, b, down, right, thick = (float(values.flat[best]) for values in (a, b, down, right, thick + 1))
    if thick > RING * min(a, b):
        return False
    rows, columns = np.mgrid[:high, :wide]
    across = ((rows + 0.5 - down) / (a - thick - 1)) ** 2 + ((columns + 0.5 - right) / (b - thick - 1)) ** 2 <= 1
    return bool(mask[across].mean() > CROSSED)


def _opened(filled: np.ndarray, reach: float) -> np.ndarray:
    """A filled outline without outer strokes that are as wide as `reach` times its own width, or less."""
    depth = ndimage.distance_transform_edt(np.pad(filled, 1))[1:-1, 1:-1]
    radius = reach * depth.max()
    return ndimage.distance_transform_edt(depth <= radius) <= radius if reach else filled


def _straight_sides(ink: np.ndarray) -> int:
    """The number of sides with a straight line and few strokes beyond it, also if slightly rotated."""
    most = 0
    for turned in _rotated(ink, range(-8, 9, 2)):
        sides = 0
        for lines in (turned, turned.T):
            runs = _longest_runs(lines) / lines.shape[1]
            beyond = max(2, round(0.03 * len(lines)))
            before = np.concatenate([np.zeros(beyond), runs, np.zeros(beyond)])
            jumps = [(runs > 0.6) & (other < 0.3) for other in (before[: len(runs)], before[2 * beyond :])]
            sides += int(jumps[0][: len(runs) // 2].any()) + int(jumps[1][len(runs) // 2 :].any())
        most = max(most, sides)
    return most


def _has_corner(ink: np.ndarray) -> bool:
    """Whether two thin straight lines as long as the whole shape meet in a corner, with other strokes beside them."""
    for turned in _rotated(ink, range(-6, 7, 3)):
        for rows in _line_places(turned):
            for columns in _line_places(turned.T):
                rest = turned.copy()
                rest[max(0, rows.start - 1) : rows.stop + 1] = False
                rest[:, max(0, columns.start - 1) : columns.stop + 1] = False
                if turned[rows, columns].any() and rest.sum() > BESIDE * turned.sum():
                    return True
    return False


def _line_places(ink: np.ndarray) -> list[slice]:
    """The rows of a thin straight line in the upper and in the lower quarter, if any."""
    runs, found = _longest_runs(ink) / ink.shape[1], []
    quarter = max(1, len(runs) // 4)
    for first in (0, len(runs) - quarter):
        most = first + int(runs[first : first + quarter].argmax())
        labels, _ = ndimage.label(runs > 0.6)
        if runs[most] >= STRAIGHT:
            places = ndimage.find_objects(labels)[labels[most] - 1][0]
            if places.stop - places.start <= min(0.15 * len(runs), (runs[places] > 0.9).sum() + 2):
                found.append(places)
    return found


def _longest_runs(lines: np.ndarray) -> np.ndarray:
    """(H, W) bool → (H,) int: the longest run of ink in each line."""
    counts = np.cumsum(lines, 1)
    starts = np.maximum.accumulate(np.where(lines, 0, counts), 1)  # the count before the latest gap
    return (counts - starts).max(1)


def _is_rectangle(filled: np.ndarray) -> bool:
    rows, columns = np.nonzero(filled)
    for angle in np.deg2rad(np.arange(-10, 11, 2)):
        u, v = columns * np.cos(angle) - rows * np.sin(angle), columns * np.sin(angle) + rows * np.cos(angle)
        if len(rows) > OVERLAP[RECTANGLE] * (np.ptp(u) + 1) * (np.ptp(v) + 1):
            return True
    return False


def _is_ellipse(filled: np.ndarray) -> bool:
    rows, columns = np.nonzero(filled)
    (top, high), (left, wide) = ((places.min(), np.ptp(places) + 1) for places in (rows, columns))
    down, right = np.mgrid[: filled.shape[0], : filled.shape[1]]
    ellipse = ((down - top + 0.5) / high * 2 - 1) ** 2 + ((right - left + 0.5) / wide * 2 - 1) ** 2 <= 1
    return bool((filled & ellipse).sum() > OVERLAP[CIRCLE] * (filled | ellipse).sum())
