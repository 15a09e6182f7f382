"""Views: what is shown of a picture, all of it or a part, mirrored or not."""

import numpy as np
from PIL import Image

from stages.pictures.decoding import Pixels

ZOOM = 0.75
"""Side of the part of a picture that a zoomed view shows, as a share of the picture's side."""
_PLACES = {
    "zoom": (0.5, 0.5),
    "top_left": (0, 0),
    "top_right": (0, 1),
    "bottom_left": (1, 0),
    "bottom_right": (1, 1),
}
VIEWS = ("plain", "mirror", *(f"{place}{end}" for place in _PLACES for end in ("", "_mirror")))
"""What can be shown of a picture: all of it, its middle, its corners, and all that mirrored."""


def view_window(view: str, side: int) -> tuple[int, int, int]:
    """Top, left and side, in pixels, of what a view shows of a square picture."""
    down, right = _PLACES.get(view.removesuffix("_mirror"), (0, 0))
    shown = round(ZOOM * side) if view.removesuffix("_mirror") in _PLACES else side
    return round(down * (side - shown)), round(right * (side - shown)), shown


def is_mirrored(view: str) -> bool:
    """Whether a view is flipped from left to right."""
    return view.endswith("mirror")


def see(images: Pixels, view: str) -> Pixels:
    """Images (n, side, side, 3) in one of VIEWS, scaled up to the same shape, bilinearly."""
    side = images.shape[1]
    top, left, shown = view_window(view, side)
    if shown < side:
        # Cut first: a box given to `resize` would let in what lies beside it, the model does not.
        windows = images[:, top : top + shown, left : left + shown]
        size, how = (side, side), Image.Resampling.BILINEAR
        scaled = [Image.fromarray(window).resize(size, how) for window in windows]
        images = np.stack([np.asarray(image) for image in scaled])
    return images[:, :, ::-1] if is_mirrored(view) else images
