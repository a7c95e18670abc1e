"""Pictures of every kind come out as upright RGB bytes; bad files give one message that names them."""

import io
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.files.images import decode_mask, photo_focal, read_image

# Smooth, so that JPEG keeps it; brighter to the right and reddish at the top, so that turns and flips show.
RAMP = np.linspace(20, 235, 32)[None, :].repeat(24, 0)
PICTURE = np.stack([RAMP, RAMP * np.linspace(0.5, 1, 24)[:, None], RAMP / 2], axis=-1).astype(np.uint8)


def test_rgb_is_kept(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PICTURE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 3),
    }  # fmt: skip
    stored = np.ascontiguousarray(undo[orientation](PICTURE))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PICTURE)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    options = {"quality": 98} if suffix == ".jpg" else {}
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / f"a{suffix}", **options)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - PICTURE).max() < 12


def test_grayscale_and_palette(tmp_path):
    gray = RAMP.astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, -1))
    Image.fromarray(gray).convert("P").save(tmp_path / "palette.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.gif"), np.repeat(gray[..., None], 3, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(tmp_path / f"a{suffix}")
    result = read_image(tmp_path / f"a{suffix}")
    assert np.abs(result[..., 0] - RAMP).max() <= 1
    np.testing.assert_array_equal(result[..., 0], result[..., 2])


def test_floats(tmp_path):
    for scale in (1 / 255, 1.0):
        values = (RAMP * scale).astype(np.float32)
        values[0, 0] = np.nan
        Image.fromarray(values).save(tmp_path / "a.tif")
        result = read_image(tmp_path / "a.tif")[..., 0]
        assert result[0, 0] == 0
        assert np.abs(result[1:] - RAMP[1:]).max() <= 1


def test_transparency_is_laid_over_white(tmp_path):
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[:12] = 0
    Image.fromarray(np.concatenate([PICTURE, alpha], -1)).save(tmp_path / "a.png")
    result = read_image(tmp_path / "a.png")
    assert (result[:12] == 255).all()
    np.testing.assert_array_equal(result[12:], PICTURE[12:])
    Image.fromarray(np.concatenate([RAMP[..., None].astype(np.uint8), alpha], -1)).save(tmp_path / "la.png")
    assert (read_image(tmp_path / "la.png")[:12] == 255).all()


def test_palette_with_transparency_gives_no_warning(tmp_path):
    image = Image.fromarray(PICTURE).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes([0] + [255] * 15))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").shape == PICTURE.shape


def write_truncated(path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path.with_suffix(".whole.jpg"))
    path.write_bytes(path.with_suffix(".whole.jpg").read_bytes()[:2000])


BAD_FILES = {
    "missing.jpg": (lambda path: None, "no such file"),
    "folder.jpg": (lambda path: path.mkdir(), "is a folder"),
    "zero.jpg": (lambda path: path.write_bytes(b""), "empty"),
    "text.jpg": (lambda path: path.write_text("hello" * 100), "not a picture"),
    "program.eps": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n"), "not a pict"),
    "cut.jpg": (write_truncated, "damaged or cut short"),
    "header.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40)), "cut.png|damaged|not a picture"),
    "dot.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "1 x 1 pixels"),
    "thin.png": (lambda path: Image.new("RGB", (15, 400)).save(path), "15 x 400 pixels"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_give_one_message_that_names_the_file(tmp_path, name):
    write, message = BAD_FILES[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as raised:
        read_image(tmp_path / name)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_decompression_bomb(tmp_path, monkeypatch):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # 768 pixels: over the limit that warns
    assert read_image(tmp_path / "a.png").shape == PICTURE.shape
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # over twice the limit
    with pytest.raises(InputError, match=r"a\.png.*million pixels"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


def test_masks_keep_their_values(tmp_path):
    labels = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32) % 10
    Image.fromarray(labels).save(tmp_path / "gray.png")
    indexed = Image.fromarray(labels).copy()
    indexed.putpalette(list(range(256)) * 3)
    indexed.save(tmp_path / "palette.png")
    Image.fromarray(labels > 5).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "gray.png"), labels)
    np.testing.assert_array_equal(decode_mask(tmp_path / "palette.png"), labels)
    np.testing.assert_array_equal(decode_mask(tmp_path / "bits.png"), labels > 5)
    Image.fromarray(PICTURE).save(tmp_path / "color.png")
    with pytest.raises(InputError, match=r"color\.png.*one channel"):
        decode_mask(tmp_path / "color.png")


def test_the_focal_length_is_told_by_exif_unless_the_photo_was_cut(tmp_path):
    path = tmp_path / "photo.jpg"

    def write(size, tags):
        exif = Image.Exif()
        exif.get_ifd(0x8769).update(tags)
        Image.new("RGB", size).save(path, exif=exif)

    write((300, 200), {0xA405: 50, 0xA002: 3000, 0xA003: 2000})  # made smaller since
    assert photo_focal(path) == pytest.approx(50 / 36 * 300)
    write((200, 300), {0xA405: 50, 0xA002: 3000, 0xA003: 2000})  # turned upright since
    assert photo_focal(path) == pytest.approx(50 / 36 * 300)
    write((300, 200), {0xA405: 50})
    assert photo_focal(path) == pytest.approx(50 / 36 * 300)
    write((300, 300), {0xA405: 50, 0xA002: 3000, 0xA003: 2000})
    assert photo_focal(path) is None
    write((300, 200), {0xA405: 0})
    assert photo_focal(path) is None
    write((300, 200), {})
    assert photo_focal(path) is None
    path.write_bytes(b"no picture")
    assert photo_focal(path) is None and photo_focal(tmp_path / "missing.jpg") is None


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_damaged_exif_data_leave_the_picture_and_no_focal_length(tmp_path, kind):
    exif, path = Image.Exif(), tmp_path / f"a.{kind}"
    exif[0x8769] = {0xA405: 50}
    Image.new("RGB", (300, 200)).save(path, exif=exif)
    whole = path.read_bytes()
    start = whole.find(b"MM\x00*")
    for place in range(start, start + 30):
        for value in (0, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            assert read_image(path).shape == (200, 300, 3)
            photo_focal(path)
    path.write_bytes(whole[:start] + b"?" + whole[start + 1 :])
    assert photo_focal(path) is None


def write_deep_png(path, numbers):
    """Pillow writes no PNG of 16 bits but grey ones."""
    height, width, channels = numbers.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)


def deep_picture(bits, channels):
    """PICTURE in `bits` bits, which its brightest pixel uses up; with an opaque alpha of the same bits."""
    numbers = PICTURE[..., :1] if channels < 3 else PICTURE
    numbers = np.round(numbers / PICTURE.max() * (2**bits - 1)).astype(np.uint16)
    if channels in (2, 4):
        numbers = np.concatenate([numbers, np.full_like(numbers[..., :1], 2**bits - 1)], -1)
    return numbers


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bits_that_hold_fewer_are_as_bright_as_others(tmp_path, bits, channels):
    write_deep_png(tmp_path / "a.png", deep_picture(bits, channels))
    expected = (PICTURE if channels > 2 else PICTURE[..., :1]) / PICTURE.max() * 255
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 1


@pytest.mark.parametrize("options", [
    {}, {"byteorder": ">"}, {"compression": "zlib"}, {"planarconfig": "separate"},
    {"planarconfig": "separate", "compression": "zlib"},
])  # fmt: skip
@pytest.mark.parametrize("kind", ["uint16", "uint32", "float16", "float32", "float64"])
def test_tiffs_of_any_numbers(tmp_path, kind, options):
    tifffile = pytest.importorskip("tifffile", reason="reads TIFFs that Pillow does not; it is in the extra photo")
    numbers = deep_picture(12, 3)
    numbers = (numbers / np.float64(4095)).astype(kind) if kind[0] == "f" else numbers.astype(kind)
    stored = np.rot90(numbers, 1)  # orientation 6
    if options.get("planarconfig"):
        stored = np.moveaxis(stored, -1, 0)
    tags = [(0x0112, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extratags=tags, **options)
    assert np.abs(read_image(tmp_path / "a.tif") - PICTURE / PICTURE.max() * 255).max() <= 1


def test_tiffs_that_say_more_than_they_hold_are_refused_at_once(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="reads TIFFs that Pillow does not; it is in the extra photo")
    tifffile.imwrite(tmp_path / "a.tif", (PICTURE / 255).astype(np.float32), photometric="rgb")
    content = (tmp_path / "a.tif").read_bytes()
    for side in (10_000, 60_000):  # in the place of the width, the first tag's value
        place = (
            content.index(struct.pack("<HHI", 256, 4, 1)) + 8
            if struct.pack("<HHI", 256, 4, 1) in content
            else (content.index(struct.pack("<HHI", 256, 3, 1)) + 8)
        )
        (tmp_path / "b.tif").write_bytes(content[:place] + struct.pack("<I", side) + content[place + 4 :])
        with pytest.raises(InputError, match=r"b\.tif.*(cut short|million pixels)"):
            read_image(tmp_path / "b.tif")


def test_floats_may_reach_a_little_beyond_their_range(tmp_path):
    values = (PICTURE / PICTURE.max()).astype(np.float32)
    values[3, 4] = 1.05  # as resampling leaves it
    expected = np.clip(values, 0, 1) * 255
    assert np.abs(read_image(values) - expected).max() <= 1
    assert np.abs(read_image(values * 4095) - expected).max() <= 1


def heic(path, picture=PICTURE, **options):
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs it; it is in the extra photo")
    image = Image.fromarray(np.repeat(np.repeat(picture, 4, 0), 4, 1))  # its colours have half the resolution
    pillow_heif.from_pillow(image).save(path, quality=95, **options)


def is_the_picture(pixels):
    return pixels.shape == (96, 128, 3) and np.abs(pixels[2::4, 2::4].astype(int) - PICTURE).max() < 24


@pytest.mark.parametrize("name", ["a.heic", "IMG_1.JPG", "b.png"])
def test_heic_is_known_by_its_content(tmp_path, name):
    heic(tmp_path / "a.heic")
    (tmp_path / "a.heic").rename(tmp_path / name)
    assert is_the_picture(read_image(tmp_path / name))


@pytest.mark.parametrize("name", ["a.avif", "IMG_1.jpg"])
def test_avif_is_known_by_its_content(tmp_path, name):
    Image.fromarray(PICTURE.repeat(4, 0).repeat(4, 1)).save(tmp_path / name, "AVIF", quality=95)
    assert is_the_picture(read_image(tmp_path / name))


def test_heic_comes_upright_once_and_with_its_focal_length(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0xA405: 26})
    heic(tmp_path / "a.heic", np.ascontiguousarray(np.rot90(PICTURE)), exif=exif.tobytes())
    assert is_the_picture(read_image(tmp_path / "a.heic"))
    assert photo_focal(tmp_path / "a.heic") == pytest.approx(26 * 160 / np.hypot(24, 36))


def test_heic_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    heic(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"a\.heic: HEIC .*pip install 'jaxface\[photo\]', or save it as JPEG"):
        read_image(tmp_path / "a.heic")


def test_damaged_heic_says_so(tmp_path):
    heic(tmp_path / "a.heic")
    content = (tmp_path / "a.heic").read_bytes()
    for length in (12, 40, 300, len(content) // 2):
        (tmp_path / "a.heic").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.heic: the picture is damaged or cut short"):
            read_image(tmp_path / "a.heic")


def test_what_python_code_has_at_hand(tmp_path):
    image = Image.fromarray(PICTURE)
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769).update({0xA405: 50})
    image.save(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    alpha = np.concatenate([PICTURE, np.zeros((24, 32, 1), np.uint8)], -1)
    with Image.open(tmp_path / "a.png") as opened:
        for photo in (content, image, opened, PICTURE, PICTURE.astype(np.int64), (PICTURE / 255).astype(np.float32)):
            np.testing.assert_array_equal(read_image(photo), PICTURE)
        for photo in (content, opened, str(tmp_path / "a.png")):
            assert photo_focal(photo) == pytest.approx(50 * np.hypot(32, 24) / np.hypot(36, 24))
    assert photo_focal(PICTURE) is None and photo_focal(image) is None
    for gray in (PICTURE[..., 0], PICTURE[..., :1], Image.fromarray(PICTURE[..., 0])):
        np.testing.assert_array_equal(read_image(gray), PICTURE[..., :1].repeat(3, -1))
    for transparent in (alpha, Image.fromarray(alpha)):
        assert (read_image(transparent) == 255).all()
    turned = Image.open(io.BytesIO(content))
    turned.getexif()[0x0112] = 3
    np.testing.assert_array_equal(read_image(turned), PICTURE[::-1, ::-1])


@pytest.mark.parametrize("photo", [
    b"", b"hello" * 100, np.zeros((4, 5, 6, 3)), np.zeros((30, 30, 5)), np.zeros((30, 30, 3), bool), np.zeros(30),
    np.zeros((30, 30, 3), complex), np.zeros((0, 30, 3)), np.zeros((8, 30, 3)), Image.new("RGB", (8, 30)), 7, None,
])  # fmt: skip
def test_what_is_no_photo_is_told_in_one_line(photo):
    with pytest.raises(InputError) as raised:
        read_image(photo)
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)
