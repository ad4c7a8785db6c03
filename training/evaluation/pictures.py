"""Small pictures that a page carries within itself."""

import base64
import io

from PIL import Image

_SIDE = 160  # pixels


def data_uri(image: Image.Image) -> str:
    """A JPEG of at most 160 pixels a side, as a `data:` address."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
