"""Check decoding of pictures: JPEG at any scale, grey, 16 bits, CMYK, transparent, animated, damaged."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.images import QUALITY, decode, encode, square
from alexnet_jax.errors import RunError


def smooth(height, width):
    """Return a picture without sharp edges, uint8 [height, width, 3], which JPEG and scaling hardly change."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    return np.rint(np.stack([60 + 120 * rows, 60 + 120 * columns, 180 - 90 * rows], -1)).astype(np.uint8)


def stored(pixels, file_format, mode=None, **options):
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, file_format, **options)
    return file.getvalue()


def by_hand(pixels, side):
    """Scale the picture with a triangle filter in 64 bits, and return the central square."""
    height, width, _ = pixels.shape
    short = min(height, width)
    weights = []
    for length in (height, width):
        scale, offset = short / side, (length - short) / 2
        centres = offset + (np.arange(side) + 0.5) * scale
        reach = max(1.0, scale)
        weight = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / reach)
        inside = slice(int(np.floor(offset)), int(np.ceil(offset + short)))
        kept = np.zeros_like(weight)
        kept[:, inside] = weight[:, inside]
        weights.append(kept / kept.sum(1, keepdims=True))
    return np.moveaxis(weights[0] @ np.moveaxis(pixels.astype(np.float64), -1, 0) @ weights[1].T, 0, -1)


@pytest.mark.parametrize("shape", [(300, 300), (375, 500), (500, 333), (75, 56), (230, 320), (685, 320)])
def test_the_shorter_side_is_scaled_and_the_centre_cut_out(shape):
    pixels = smooth(*shape)
    found = square(stored(pixels, "PNG"), 256, "it")
    assert (found.shape, found.dtype) == ((256, 256, 3), np.uint8)
    assert np.abs(found - by_hand(pixels, 256)).max() <= 1


def test_a_square_of_the_right_side_stays_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(square(stored(pixels, "PNG"), 32, "it"), pixels)


@pytest.mark.parametrize("shape", [(375, 500), (1200, 1600)])
def test_jpegs_decoded_at_a_smaller_scale_are_the_same(shape):
    pixels = smooth(*shape)
    encoded = stored(pixels, "JPEG", quality=95)
    decoded = decode(encoded, "it", at_least=256)
    assert decoded.shape[0] == (shape[0] if shape[0] < 512 else shape[0] // 4)
    assert np.abs(square(encoded, 256, "it").astype(int) - by_hand(pixels, 256)).max() <= 4


def test_grey_pictures_have_three_equal_channels():
    pixels = smooth(64, 64)[..., 0]
    for encoded in (stored(pixels, "PNG"), stored(pixels, "JPEG", quality=100)):
        found = square(encoded, 32, "it")
        assert found.shape == (32, 32, 3)
        assert (found[..., 0] == found[..., 1]).all() and (found[..., 0] == found[..., 2]).all()
        assert np.abs(found[..., 0].astype(int) - by_hand(np.repeat(pixels[..., None], 3, -1), 32)[..., 0]).max() <= 2


def test_sixteen_bits_are_scaled_not_clipped():
    deep = (smooth(40, 40)[..., 0].astype(np.uint16)) * 257
    np.testing.assert_array_equal(decode(stored(deep, "PNG"), "it")[..., 0], smooth(40, 40)[..., 0])


@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("JPEG", "CMYK", {"quality": 100}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("GIF", "P", {"save_all": True, "append_images": [Image.new("P", (48, 40))]}),
        ("WEBP", None, {"lossless": True}),
        ("TIFF", None, {}),
        ("BMP", None, {}),
    ],
)
def test_other_formats_are_read(file_format, mode, options):
    pixels = smooth(40, 48)
    found = decode(stored(pixels, file_format, mode, **options), "it")
    assert found.shape == (40, 48, 3)
    reference = np.asarray(Image.fromarray(pixels).convert(mode or "RGB").convert("RGB"))
    assert np.abs(found.astype(int) - reference).mean() < 2


@pytest.mark.parametrize("name", ["empty", "text", "half a JPEG", "half a PNG", "a huge PNG's head"])
def test_what_is_no_picture_is_named_without_a_warning(name):
    whole = stored(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8), "JPEG")
    png = stored(smooth(64, 64), "PNG")
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00" + b"0000"
    damaged = {
        "empty": b"",
        "text": b"not a picture",
        "half a JPEG": whole[: len(whole) // 2],
        "half a PNG": png[: len(png) // 2],
        "a huge PNG's head": head,
    }
    message = r"^cat\.jpg cannot be read as a picture .*Replace or remove it\.$"
    with warnings.catch_warnings(), pytest.raises(RunError, match=message):
        warnings.simplefilter("error")
        square(damaged[name], 32, "cat.jpg")


def test_what_is_stored_comes_back_nearly_the_same():
    pixels = smooth(256, 256)
    encoded = encode(pixels)
    assert np.abs(decode(encoded, "it").astype(int) - pixels).mean() < 1
    assert QUALITY == 95 and len(encoded) < pixels.size / 10
