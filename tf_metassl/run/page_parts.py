"""What the pages of a run and of an audit have in common."""

import base64
import io

import numpy as np
from PIL import Image

# Pixels on the longer side of a picture.
SIDE = 64


def data_uri(pixels: np.ndarray) -> str:
    """A picture as a `data:` URI, at most 64 pixels large.

    Args:
        pixels: `[H, W, C]` uint8; with other than 1 or 3 channels, their mean
            is shown.
    """
    if pixels.shape[2] not in (1, 3):
        pixels = pixels.mean(axis=2, keepdims=True).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/png;base64,{text}"


def number(count: int, one: str, several: str = "") -> str:
    """`1 image`, `2 images`: a count and what is counted."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"
