"""From an encoded picture to a square of RGB pixels, as the paper prepares its images (section 2), and back to JPEG."""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from alexnet_jax.errors import RunError

JPEG = b"\xff\xd8"
QUALITY = 95
"""Of the JPEGs that `encode` makes."""


def square(encoded: bytes, side: int, where: str) -> np.ndarray:
    """Decode, scale the shorter side to `side` (up or down), cut out the centre: uint8 [side, side, 3].

    Grey becomes RGB, transparency is dropped, of an animation the first frame counts; the orientation a camera noted is
    ignored, as in ImageNet's own pixels. JPEGs at least twice as large as needed are decoded at a smaller scale.
    Raises RunError naming `where` when the bytes are no picture or a damaged one.
    """
    pixels = decode(encoded, where, at_least=side)
    height, width, _ = pixels.shape
    if (height, width) == (side, side):
        return pixels
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    # One pass over exactly the square that is kept; Pillow's filter widens with the reduction, so nothing aliases.
    box = (left, top, left + short, top + short)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box))


def decode(encoded: bytes, where: str, at_least: int = 0) -> np.ndarray:
    """RGB pixels uint8 [height, width, 3], no smaller than `at_least`, or as they are where it is 0. See `square`."""
    if encoded[:2] == JPEG:
        try:
            return simplejpeg.decode_jpeg(encoded, "RGB", min_height=at_least, min_width=at_least, min_factor=2)
        except ValueError:  # CMYK, an odd marker, or real damage: Pillow tells them apart
            pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of profiles and tags that decide nothing here
            return _with_pillow(encoded)
    except Exception as problem:  # Pillow's decoders raise nearly everything
        raise RunError(
            f"{where} cannot be read as a picture ({_trouble(problem, encoded)}). Replace or remove it."
        ) from problem


def _trouble(problem: Exception, encoded: bytes) -> str:
    if not encoded:
        return "an empty file"
    what = f"{type(problem).__name__}: {problem}"
    if isinstance(problem, UnidentifiedImageError):  # whose message names an object of Python
        what = "none of a kind that Pillow knows, or its first bytes are damaged"
    return f"{what}; {len(encoded):,} bytes"


def _with_pillow(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as picture:
        if picture.mode.startswith(("I", "F")):  # 16 bits or more, which `convert` would clip to 255
            values = np.asarray(picture, np.float64)
            grey = np.rint(np.clip(values / 257, 0, 255)).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        return np.asarray(picture.convert("RGB"))


def encode(pixels: np.ndarray) -> bytes:
    """JPEG of uint8 [height, width, 3], quality 95, colours at half resolution (4:2:0)."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "420")


EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
"""Of files that are taken for pictures; ImageNet's own end in .JPEG."""


def pictures(folder: Path) -> list[Path]:
    """The picture files in a folder and below, sorted by path; hidden ones are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def upright(encoded: bytes, side: int, where: str) -> np.ndarray:
    """`square`, turned and mirrored as the camera noted: a picture as one sees it, uint8 [side, side, 3].

    For pictures that users give. Turning a square afterwards is the same as cutting it out of the turned picture.
    """
    pixels = square(encoded, side, where)
    orientation = _orientation(encoded)
    if orientation in (5, 6, 7, 8):  # rows of the file are columns of the picture
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _orientation(encoded: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, or where Pillow has turned the pixels already (TIFF)."""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(encoded)) as picture:  # damaged EXIF raises all sorts
        if picture.format != "TIFF":
            return picture.getexif().get(ExifTags.Base.Orientation, 1)
    return 1
