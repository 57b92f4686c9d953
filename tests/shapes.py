"""Ten digits as strokes, for tests that draw: lists of (x, y) from 0 to 1, y downwards."""

import math

from PIL import Image, ImageDraw


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
