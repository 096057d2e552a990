"""Pictures as pixels, and indexed PNG as labels."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InvalidValueError, MediaError, ThroughMaskWarning
from ..files import must_be_file, new_file
from ..palette import DAVIS
from ..types import Labels, Pixels

MAX_PIXELS = 1 << 26  # of one picture: 67 million, below the size at which Pillow itself warns of a bomb
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # none that runs a program or opens files
IMAGE_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A picture as RGB uint8 H W 3, turned upright as its EXIF data says.

    Grey, palette and CMYK are converted, 16 bits become 8; transparent pixels are laid over white, with a notice.

    Raises MediaError if the file is missing, damaged, no picture, floating-point, or larger than `max_pixels`.
    """
    with _image(path, IMAGE_FORMATS, max_pixels) as image:
        pictures = getattr(image, "n_frames", 1)
        if pictures > 1 and image.format != "MPO":
            warnings.warn(f"{path}: only the first of {pictures} pictures was read", ThroughMaskWarning, stacklevel=2)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            wide = np.asarray(image).astype(np.uint32)
            return np.repeat(((wide * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, -1)
        if image.mode in ("I", "F"):
            fix = "save it as an 8-bit PNG or JPEG"
            raise MediaError("a picture with 32-bit values has no known white", seen=str(path), fix=fix)
        if image.has_transparency_data:
            return _over_white(image.convert("RGBA"), path)
        return np.array(image.convert("RGB"))


def write_image(path: str | Path, pixels: Pixels, *, force: bool = False) -> None:
    """Pixels (H W 3) to .png or lossy .jpg and .webp. Raises OutputError, or MediaError for another suffix."""
    kind = IMAGE_SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise MediaError("pictures are written as PNG, JPEG or WebP", seen=str(path), fix="end the name in .png")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise InvalidValueError("a picture must be uint8 H W 3, not empty", seen=f"{pixels.dtype} {pixels.shape}")
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": 95}
    if kind == "JPEG":
        options["subsampling"] = 0
    with new_file(path, force=force) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, kind, **options)


def read_labels(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Labels:
    """A label map (uint8 H W) from an indexed PNG, or an 8-bit grey or 1-bit one, taking each value as an id.

    Raises MediaError if the file is missing, damaged, no PNG, or stores colours instead of ids.
    """
    with _image(path, ("PNG",), max_pixels) as image:
        # Pillow stretches grey of 2 or 4 bits to 0..255, which would change the ids.
        stretched = image.mode == "L" and image.info["stored as"] != "L"
        if image.mode not in ("P", "L", "1") or stretched:
            fix = "write an indexed or 8-bit grey PNG; colours become labels with throughmask.palette"
            raise MediaError("labels must be an indexed PNG", seen=f"{path}: mode {image.mode}", fix=fix)
        return np.array(image).astype(np.uint8)


def write_labels(path: str | Path, labels: Labels, *, force: bool = False) -> None:
    """Labels (uint8 H W) to an indexed PNG with the DAVIS palette, lossless. Raises OutputError."""
    if labels.dtype != np.uint8 or labels.ndim != 2 or 0 in labels.shape:
        raise InvalidValueError("labels must be uint8 H W, not empty", seen=f"{labels.dtype} {labels.shape}")
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(DAVIS.colours.tobytes())
    with new_file(path, force=force) as temporary:
        image.save(temporary, "PNG")


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A picture (H W 3) at another height and width, by Lanczos. Raises InvalidValueError for an impossible size."""
    height, width = _possible(size)
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.LANCZOS))


def resize_labels(labels: Labels, size: tuple[int, int]) -> Labels:
    """Labels (... H W) at another height and width: each pixel takes the label under its centre."""
    height, width = _possible(size)
    rows, columns = (
        ((2 * np.arange(new) + 1) * old) // (2 * new)
        for new, old in zip((height, width), labels.shape[-2:], strict=True)
    )
    return np.ascontiguousarray(labels[..., rows[:, None], columns])


def _possible(size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InvalidValueError(f"a picture has 1 to {MAX_PIXELS} pixels", seen=f"{height}×{width}")
    return height, width


@contextmanager
def _image(path: str | Path, formats: tuple[str, ...], max_pixels: int) -> Iterator[Image.Image]:
    """An opened and decoded image; everything that Pillow says about a bad file becomes a MediaError."""
    must_be_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is checked below; broken EXIF is not worth a notice
            image = Image.open(path, formats=formats)
            if image.width * image.height > max_pixels:
                fix = f"shrink it, or raise max_pixels (now {max_pixels})"
                raise MediaError("the picture is too large", seen=f"{path}: {image.height}×{image.width}", fix=fix)
            tiles = getattr(image, "tile", None)  # gone after load
            image.info["stored as"] = tiles[0].args if tiles else ""
            image.load()
        with image:
            yield image
    except Image.DecompressionBombError as error:
        raise MediaError("the picture is too large", seen=f"{path}: {error}", fix="shrink it") from error
    except UnidentifiedImageError as error:
        fix = f"convert it to PNG; readable here: {', '.join(formats)}"
        raise MediaError("the file is not a picture of a known format", seen=str(path), fix=fix) from error
    except MediaError:
        raise
    except BROKEN_IMAGE as error:
        raise MediaError("the picture is damaged or cannot be read", seen=f"{path}: {error}") from error


def _over_white(image: Image.Image, path: str | Path) -> Pixels:
    rgba = np.array(image)
    alpha = rgba[..., 3:].astype(np.uint32)
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    warnings.warn(
        f"{path}: {int((alpha < 255).sum())} transparent pixels were laid over white", ThroughMaskWarning, stacklevel=2
    )
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
