"""Photographs come out as MNIST's pictures do, whatever camera or program made them, or are refused in one line."""

import io
import struct
import zlib
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngImageFile
from shapes import STROKES, drawn

from tools import measurements, train
from tools import photographs as measure
from utils import CourseError, files
from utils.data import photo
from utils.runs import pretrained


@lru_cache
def network():
    return pretrained.load_pretrained("bn_augmentation")


def labels(images):
    """What the network reads in (28, 28) uint8 pictures."""
    model, preprocess = network()
    with torch.inference_mode():
        return model(preprocess(np.stack(images))).argmax(1).tolist()


# ---- pictures of one digit

DOWN, RIGHT = np.mgrid[:400, :480]
SPECKS = Image.fromarray(np.where((DOWN % 90 == 0) & (RIGHT % 110 == 0), 0, 255).astype(np.uint8))


def page(digit=5, size=300, pen=0.05):
    """A digit on paper that is 1.6 times as wide, and a third higher."""
    return drawn(STROKES[digit], size, pen, canvas=(size * 8 // 5, size * 4 // 3), place=(size * 3 // 10, size // 8))


def light_on_dark(image):
    return Image.eval(image, lambda tone: 230 - tone * 4 // 5)


def transparent(image, tone=0):
    """Black (or white) strokes on nothing, as a drawing program saves them."""
    flat = Image.new("L", image.size, tone)
    return Image.merge("RGBA", (flat, flat, flat, Image.eval(image, lambda tone: 255 - tone)))


def shaded(image):
    """Paper that is half as bright in one corner, a desk at its edge, and a sensor's noise."""
    tones = np.asarray(image).astype(np.float64) / 255
    down, right = np.mgrid[0 : 1 : tones.shape[0] * 1j, 0 : 1 : tones.shape[1] * 1j]
    light = (0.45 + 0.35 * tones) * (1.2 - 0.35 * down - 0.25 * right)
    light[-tones.shape[0] // 20 :] *= 0.3
    light += np.random.default_rng(0).normal(0, 0.02, tones.shape)
    return Image.fromarray((light.clip(0, 1) * 255).astype(np.uint8))


def shadow(image, where):
    """A page with a hard shadow on some pixels."""
    tones = np.asarray(image) * np.where(where, 0.45, 1)
    return Image.fromarray((20 + 0.85 * tones).astype(np.uint8))


def marked(image, shape, *how, **options):
    getattr(ImageDraw.Draw(image := image.copy()), shape)(*how, **options)
    return image


def framed(image, box, width, shape="rectangle"):
    return marked(image, shape, box, outline=0, width=width)


CHANGES = {
    "gray": lambda image: image,
    "light on dark": light_on_dark,
    "16 bits": lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 150 + 4000),
    "floats": lambda image: Image.fromarray(np.asarray(image).astype(np.float32) / 255),
    "transparent": transparent,
    "chalk": lambda image: transparent(image, 255),
    "palette": lambda image: image.convert("RGB").quantize(16),
    "blue ink": lambda image: ImageOps.colorize(image, (30, 40, 160), (250, 245, 225)),
    "shaded": shaded,
    "specks and the rim of the sheet": lambda image: framed(ImageChops.darker(image, SPECKS), (0, 0, 5, 399), 6),
    "hard shadow": lambda image: shadow(image, DOWN + RIGHT > 440),
    **{mode: lambda image, mode=mode: image.convert("RGB").convert(mode) for mode in ("1", "CMYK", "LA")},
}
FRAMES = {
    "thin frame": lambda image: framed(image, (60, 30, 420, 380), 1),
    "frame at the edge": lambda image: framed(image, (0, 0, 479, 399), 9),
    "three sides": lambda image: framed(image, (60, 30, 600, 380), 4),
    "rotated": lambda image: framed(image, (60, 30, 420, 380), 4).rotate(5, Image.Resampling.BICUBIC, fillcolor=255),
    "light circle": lambda image: light_on_dark(framed(image, (42, 2, 438, 398), 4, "ellipse")),
    "circle with a gap": lambda image: marked(image, "arc", (20, 2, 460, 398), 20, 350, 0, 5),
    "two ruled lines": lambda image: marked(image, "line", [(-9, 30), (489, 30), (489, 370), (-9, 370)], 0, 3),
}
PICTURES = {kind: lambda digit, change=change: change(page(digit)) for kind, change in (CHANGES | FRAMES).items()}
PICTURES |= {f"pen of {pen}": lambda digit, pen=pen: page(digit, 500, pen) for pen in (0.015, 0.14)}
PICTURES |= {f"{size} pixels": lambda digit, size=size: shaded(page(digit, size, 0.09)) for size in (40, 800)}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_drawn_digit_is_read_in_any_mode_polarity_pen_size_and_frame(kind):
    digits = [0, 1, 5]  # closed, a line, two strokes
    images = [photo.read(PICTURES[kind](digit)) for digit in digits]
    for image in images:
        assert image.shape == (28, 28) and image.dtype == np.uint8
        assert image.max() == 255 and (image == 0).mean() > 0.5
        rows, columns = np.nonzero(image)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        center = [(image.sum(1 - axis) * np.arange(28)).sum() / image.sum() for axis in range(2)]
        assert np.abs(np.array(center) - 14).max() <= 0.51
    assert labels(images) == digits


def test_a_line_one_pixel_wide_is_a_digit():
    thin = np.full((200, 200), 255, np.uint8)
    thin[25:175, 100] = 0
    assert photo.read(Image.fromarray(thin)).max() == 255


def test_a_camera_that_was_held_on_its_side_says_so_in_exif(tmp_path):
    sideways, upright = page(7).transpose(Image.Transpose.ROTATE_90), photo.read(page(7)).astype(int)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    sideways.save(tmp_path / "seven.jpg", exif=exif, quality=95)
    assert np.abs(photo.read(tmp_path / "seven.jpg") - upright).max() <= 16  # what JPEG changes
    assert np.abs(photo.read(sideways) - upright).max() > 200  # without EXIF it stays as it is


def test_mnist_enlarged_and_read_back_keeps_its_label_where_a_plain_resize_does_not(mnist):
    """Also the closed digits, in which no frame may be seen."""
    closed = torch.cat([(mnist.test.labels == digit).nonzero()[10:14, 0] for digit in (0, 6, 8, 9)])
    originals, photos = mnist.test.images[[*range(24), *closed], 0].numpy(), []
    for number, original in enumerate(originals):
        canvas = Image.new("L", (640, 480), 0)
        large = Image.fromarray(original).resize((280, 280), Image.Resampling.BICUBIC)
        canvas.paste(large, (number * 37 % 360, number * 53 % 200))
        photos.append(light_on_dark(canvas) if number % 2 else canvas)
    expected = np.array(labels(originals))
    # another machine's rounding may move a digit that lies between two labels
    assert (labels([photo.read(image) for image in photos]) == expected).sum() >= 38
    assert (labels([photo.plain(image) for image in photos]) == expected).sum() < 30  # the negative control


# ---- what is none


def test_what_is_no_picture_of_one_digit_is_refused_and_starts_no_program(tmp_path):
    noise, empty = np.random.default_rng(2).integers(0, 256, (20, 20), np.uint8), Image.new("L", (480, 400), 255)
    bad = {
        "no ink found": [Image.new("RGBA", (300, 200)), shaded(empty)],
        "more than one digit": [Image.fromarray(np.hstack([page(1), page(2)]))],
        "more than one digit|a page of": [Image.fromarray(np.tile(page(3, 60), (6, 8)))],
        "a page of noise|more than one": [Image.fromarray(noise).resize((320, 320))],
        "too small": [Image.new("L", (5, 300))],
        "not a picture": [np.zeros((28, 28), np.uint8)],
        "no finite number": [Image.fromarray(np.full((28, 28), np.nan, np.float32))],
        "a rectangular frame without a digit": [framed(empty, (60, 50, 420, 350), 4)],
        "a rectangular frame touches the digit": [framed(page(), (150, 66, 420, 358), 6)],
        "the line of a frame touches": [marked(page(2), "line", [(160, 20), (160, 385), (430, 385)], 0, 4)],
        "a shadow or a line crosses the digit": [shadow(page(), abs(DOWN - 0.8 * RIGHT) < 20)],  # a narrow one
    }
    five, cut = tmp_path / "five.eps", tmp_path / "cut.png"
    page().save(five)  # Pillow would start Ghostscript
    page().save(cut)
    cut.write_bytes(cut.read_bytes()[:500])
    bad |= {f"{five} is not a picture: expected PNG, JPEG": [five], f"{cut} can't be read": [cut]}
    for expected, pictures in bad.items():
        for picture in pictures:
            with pytest.raises(CourseError, match=expected):
                photo.read(picture)


def test_every_kind_of_photograph_is_measured_and_published_often_enough(mnist):
    published = files.read_json(measurements.path("photographs"), measurements.Photographs)
    assert tuple(published.kinds) == measure.KINDS and min(one.n for one in published.kinds.values()) >= 100
    assert measurements.photographs_section().count("|") == 6 * (len(measure.KINDS) + 2)
    # 4 were seen, and 8 without the search for circles with strokes across their inside
    sizes = dict.fromkeys(measure.KINDS, (2, 1)) | {"circle that crosses the digit": (60, 6)}
    for kind, (n, most) in sizes.items():
        found = measure.measure(kind, mnist.test, n, lambda image: labels([image])[0])
        assert found.n == n and found.wrong <= most


# ---- what a file may hold


def png(width, height, mode):
    """A PNG file that claims a size."""
    Image.new(mode, (8, 8)).save(file := io.BytesIO(), "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return content


def test_a_picture_above_the_stated_limit_is_rejected_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("unpacked"))
    for width, height, mode, read, most in (
        (8945, 8945, "I;16", photo.read, photo.LARGEST),
        (4500, 4500, "RGBA", photo.read, photo.LARGEST // 4),
        (1001, 1000, "L", photo.tones, photo.SMALL),
    ):
        (tmp_path / "bomb.png").write_bytes(png(width, height, mode))
        with pytest.raises(CourseError, match=f"at most {most:,}"):
            read(tmp_path / "bomb.png")
    assert photo.LARGEST < Image.MAX_IMAGE_PIXELS, "Pillow's limit must not come first"


# ---- preprocess

DIGIT = np.zeros((28, 28), np.uint8)
DIGIT[5:23, 11:15] = 255
PICTURE, BLACK, WHITE = Image.fromarray(DIGIT), Image.new("L", (28, 28)), Image.new("L", (28, 28), 255)
SAME = [PICTURE.convert("RGBA"), PICTURE.convert("P"), Image.fromarray(DIGIT.astype(np.uint16) * 257)]
SAME += [Image.merge("RGBA", (BLACK, BLACK, BLACK, PICTURE)), Image.merge("LA", (WHITE, PICTURE))]  # ink on nothing
SAME += [CHANGES["floats"](PICTURE), [PICTURE], torch.from_numpy(DIGIT / 255), (DIGIT / 255).astype(np.float16)]
SAME += [np.frombuffer(DIGIT.tobytes(), np.uint8).reshape(28, 28)]  # read-only
SAME += [DIGIT[::-1, ::-1].copy()[::-1, ::-1]]  # of negative strides


def test_preprocess_takes_the_same_digit_in_any_form(tmp_path):
    preprocess = network()[1]
    PICTURE.save(tmp_path / "one.png")
    for same in SAME:
        assert torch.allclose(preprocess(same), preprocess(DIGIT), atol=1e-3)
        mixed = preprocess([same, tmp_path / "one.png", DIGIT])
        assert mixed.shape == (3, 1, 28, 28) and torch.allclose(mixed, preprocess(DIGIT), atol=1e-3)


WRONG = [None, [], [DIGIT, None], "missing.png", DIGIT.astype(np.int64), DIGIT.astype(np.float32), DIGIT[:27]]
WRONG += [np.full((28, 28), np.nan), Image.new("F", (28, 28), 2), Image.new("I", (28, 28), -1)]


def test_preprocess_reports_in_one_line_what_it_cannot_take_and_warns_of_a_bright_background(recwarn):
    _, preprocess = network()
    preprocess(photo.read(page()))
    assert not recwarn.list
    for bad in WRONG:
        with pytest.raises(CourseError) as error:
            preprocess(bad)
        assert "\n" not in str(error.value) and "expected" in str(error.value)
    with pytest.warns(UserWarning, match="the background is bright: expected white digits on black"):
        preprocess(photo.plain(page()))


# ---- the command line


@pytest.fixture
def five(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("utils.runs.execution.prepare_data", lambda experiment: None)  # no picture needs the data set
    page().save(tmp_path / "five.png")
    return str(tmp_path / "five.png")


@pytest.mark.parametrize(("name", "digits"), [("bn_augmentation", [5, 7]), ("voxel_best", [5])])
def test_train_py_reads_photographs_with_networks_of_images_and_of_voxels(name, digits, five, tmp_path, capsys):
    light_on_dark(page(7)).save(tmp_path / "seven.jpg")
    paths = [five, str(tmp_path / "seven.jpg")][: len(digits)]
    train.main([name, "--read", *paths])
    *lines, where = capsys.readouterr().out.splitlines()
    for line, path, digit in zip(lines, paths, digits, strict=True):
        answer, probability = line.removeprefix(f"{path}: ").split(" ")
        assert answer == str(digit) and 10 <= float(probability.strip("()%")) <= 100
    picture = tmp_path / "runs" / "pngs" / f"{name}_read.png"
    assert where == f"What {name} saw: {picture}" and Image.open(picture).width > 100


def test_train_py_refuses_in_one_line_what_it_cannot_read(five, tmp_path):
    Image.new("L", (300, 200), 255).save(tmp_path / "blank.png")
    for argv, message in (
        (["--seed", "3", "--read", "train.py"], "base, seed 3: no trained weights of this recipe"),
        (["--publish", "--read", "train.py"], "--read trains nothing: leave out --publish"),
        (["--read", five, str(tmp_path / "blank.png")], r"1 of 2 pictures .*blank\.png: no ink found"),
    ):
        with pytest.raises(CourseError, match=message):
            train.main(["base", *argv])
