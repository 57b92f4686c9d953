"""Ten digits as strokes, lists of (x, y) from 0 to 1, y downwards; and a photograph of a picture, for tests."""

import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def arc(x, y, wide, high, start, end, n=24):
    """Points on an ellipse; degrees run clockwise from the right, as the screen's y does."""
    angles = [math.radians(start + (end - start) * i / n) for i in range(n + 1)]
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


STROKES = {
    0: [arc(0.5, 0.5, 0.27, 0.42, -90, 270, 40)],
    1: [[(0.4, 0.25), (0.54, 0.08), (0.5, 0.92)]],
    2: [[*arc(0.5, 0.32, 0.25, 0.24, -170, 40), (0.25, 0.9), (0.5, 0.88), (0.78, 0.9)]],
    3: [[*arc(0.47, 0.29, 0.24, 0.2, -160, 90), *arc(0.47, 0.7, 0.27, 0.22, -90, 160)]],
    4: [[(0.34, 0.08), (0.25, 0.52), (0.8, 0.5)], [(0.68, 0.1), (0.62, 0.92)]],
    5: [[(0.3, 0.1), (0.28, 0.45), *arc(0.47, 0.66, 0.26, 0.24, -130, 150)], [(0.3, 0.1), (0.76, 0.09)]],
    6: [[(0.62, 0.07), (0.42, 0.3), (0.3, 0.6), *arc(0.49, 0.7, 0.2, 0.2, -180, 180)]],
    7: [[(0.22, 0.12), (0.78, 0.12), (0.62, 0.42), (0.46, 0.92)]],
    8: [[*arc(0.5, 0.28, 0.19, 0.19, 90, -270, 32), *arc(0.5, 0.7, 0.23, 0.22, -90, 270, 32)]],
    9: [[*arc(0.48, 0.3, 0.21, 0.21, 0, -360, 32), (0.68, 0.5), (0.6, 0.92)]],
}


def drawn(strokes, size=400, pen=0.09, ink=0, paper=255, canvas=None, place=(0, 0)):
    """Strokes drawn into a square of `size` pixels at `place` on a gray canvas (width, height), with a round pen: a PIL
    image."""
    canvas = canvas or (size, size)
    image = Image.new("L", (2 * canvas[0], 2 * canvas[1]), paper)  # drawn twice as large: Pillow's lines are not smooth
    brush, radius = ImageDraw.Draw(image), pen * size
    for stroke in strokes:
        points = [(2 * (place[0] + x * size), 2 * (place[1] + y * size)) for x, y in stroke]
        brush.line(points, ink, round(2 * radius))
        for x, y in points:
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), ink)
    return image.reduce(2)


def photograph(picture: Image.Image) -> Image.Image:
    """A code as a phone sees it: from the side, out of focus, in uneven light, with noise and JPEG's blocks."""
    picture = picture.convert("L").resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST)
    side = picture.width
    # the code's corners come to (0.07, 0.10), (0.95, 0.04), (0.91, 0.97), (0.03, 0.90): left and far, right and near
    how = (1.34, 0.07, -0.1 * side, 0.09, 1.28, -0.13 * side, 0.19 / side, 0.02 / side), Image.Resampling.BICUBIC
    turned = picture.transform((side, side), Image.Transform.PERSPECTIVE, *how, fillcolor=255)
    seen = np.asarray(turned.filter(ImageFilter.GaussianBlur(4)).resize((side // 2, side // 2)), float)
    light = np.linspace(0.95, 0.45, side // 2)[None] * np.linspace(1, 0.75, side // 2)[:, None]
    noise = np.random.default_rng(0).normal(0, 6, seen.shape)
    jpeg = io.BytesIO()
    Image.fromarray(((40 + 0.8 * seen) * light + noise).clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=80)
    return Image.open(jpeg)
