"""How a picture of a scene is cut: the engine's rule, for the crop settings of `shapes`."""

from jaxphoton.models.moondream import pictures
from jaxphoton.models.moondream.config import VisionConfig

CROP, PATCH, MARGIN, MAX_CROPS = 64, 8, 1, 4
GRID = CROP // PATCH
WINDOW = (GRID - 2 * MARGIN) * PATCH
OVERLAP = 2 * MARGIN * PATCH

SETTINGS = VisionConfig(crop_size=CROP, enc_patch_size=PATCH, overlap_margin=MARGIN, max_crops=MAX_CROPS)


def select_tiling(height: int, width: int) -> tuple[int, int]:
    """Return the number of tile rows and columns of a picture of this size."""
    return pictures.select_tiling(height, width, SETTINGS)


def target_size(tiling: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width a picture is resized to for its tiles."""
    return tiling[0] * WINDOW + OVERLAP, tiling[1] * WINDOW + OVERLAP
