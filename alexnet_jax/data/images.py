"""Decode pictures to squares of RGB pixels, as the paper prepares its images (section 2), and encode them as JPEG."""

import contextlib
import io
import warnings

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from alexnet_jax.errors import RunError

JPEG = b"\xff\xd8"
QUALITY = 95
"""JPEG quality used by `encode`."""


def square(encoded: bytes, side: int, where: str) -> np.ndarray:
    """Decode a picture, scale its shorter side to `side` and crop the centre. Returns uint8 [side, side, 3].

    Grey pictures become RGB, transparency is dropped, and only the first frame of an animation is used. The EXIF
    orientation is ignored, as in ImageNet's own pixels. JPEGs at least twice as large as needed are decoded at a
    smaller scale. Raises RunError naming `where` if the bytes are not a picture or are damaged.
    """
    pixels = decode(encoded, where, at_least=side)
    height, width, _ = pixels.shape
    if (height, width) == (side, side):
        return pixels
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    # One pass over exactly the square that is kept. Pillow's filter widens with the reduction, which prevents aliasing.
    box = (left, top, left + short, top + short)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box))


def decode(encoded: bytes, where: str, at_least: int = 0) -> np.ndarray:
    """Decode to RGB pixels uint8 [height, width, 3], at full size or, if `at_least` is not 0, possibly smaller but not below it.

    Raises RunError as `square` does.
    """
    if encoded[:2] == JPEG:
        try:
            return simplejpeg.decode_jpeg(encoded, "RGB", min_height=at_least, min_width=at_least, min_factor=2)
        except ValueError:  # CMYK, an unusual marker, or damage: Pillow distinguishes them
            pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about profiles and tags, which do not affect the pixels
            return _with_pillow(encoded)
    except Exception as problem:  # Pillow's decoders raise nearly every type
        raise RunError(
            f"{where} cannot be read as a picture ({_trouble(problem, encoded)}). Replace or remove it."
        ) from problem


def _trouble(problem: Exception, encoded: bytes) -> str:
    if not encoded:
        return "the file is empty"
    what = f"{type(problem).__name__}: {problem}"
    if isinstance(problem, UnidentifiedImageError):  # its own message names a Python object
        what = "not a format that Pillow reads, or its first bytes are damaged"
    return f"{what}; {len(encoded):,} bytes"


def _with_pillow(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as picture:
        if picture.mode.startswith(("I", "F")):  # 16 bits or more, which `convert` would clip to 255
            values = np.asarray(picture, np.float64)
            grey = np.rint(np.clip(values / 257, 0, 255)).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        return np.asarray(picture.convert("RGB"))


def encode(pixels: np.ndarray) -> bytes:
    """Encode uint8 [height, width, 3] as a JPEG of quality 95, colours at half resolution (4:2:0)."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420")


def upright(encoded: bytes, side: int, where: str) -> np.ndarray:
    """Return what `square` does, rotated and mirrored by the EXIF orientation: uint8 [side, side, 3].

    Used for the pictures that users pass to predict. Rotating the centre square equals cropping the rotated picture.
    """
    pixels = square(encoded, side, where)
    orientation = _orientation(encoded)
    if orientation in (5, 6, 7, 8):  # rows of the file are columns of the picture
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _orientation(encoded: bytes) -> int:
    """Return the EXIF orientation, 1 to 8: 1 if there is none, or if Pillow has already rotated the pixels (TIFF)."""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(encoded)) as picture:  # damaged EXIF raises many types
        if picture.format != "TIFF":
            return picture.getexif().get(ExifTags.Base.Orientation, 1)
    return 1
