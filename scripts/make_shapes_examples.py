"""Draw the sample pictures: python scripts/make_shapes_examples.py [--out DIR].

The true objects go into scenes.json. Needs only numpy and Pillow.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from jaxphoton.measure.shapes.scenes import Scene, make_scene
from jaxphoton.measure.shapes.texts import normal_caption, short_caption
from jaxphoton.measure.shapes.tiling import select_tiling

SEED = 70_001
# height, width and number of objects; among them pictures larger than any in training
PICTURES = (
    ((64, 64), 1),
    ((60, 64), 2),
    ((64, 64), 3),
    ((112, 112), 2),
    ((112, 112), 3),
    ((112, 112), 4),
    ((224, 224), 4),
    ((96, 144), 3),
    ((240, 320), 4),
    ((144, 96), 2),
    ((320, 240), 3),
    ((448, 448), 3),
)


def describe(name: str, scene: Scene, tiling: tuple[int, int]) -> dict[str, object]:
    """Return the entry of a picture; boxes are x_min, y_min, x_max, y_max in picture units."""
    height, width = scene.pixels.shape[:2]
    return {
        "file": name,
        "height": height,
        "width": width,
        "tiling": list(tiling),
        "objects": [
            {"class": t.name, "colour": t.colour, "box": [round(value, 5) for value in t.box]} for t in scene.things
        ],
        "caption_short": short_caption(scene.things),
        "caption_normal": normal_caption(scene.things),
    }


def main() -> None:
    """Write the pictures and scenes.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent.parent / "examples" / "shapes"
    parser.add_argument("--out", type=Path, default=default)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (size, count) in enumerate(PICTURES, 1):
        rng = np.random.default_rng([SEED, number])
        tiling = select_tiling(*size)
        scene = make_scene(rng, tiling, size, count)
        # one in three as JPEG, as users' pictures are
        name = f"scene_{number:02d}.{'jpg' if number % 3 == 0 else 'png'}"
        Image.fromarray(scene.pixels).save(out / name, quality=92)
        entries.append(describe(name, scene, tiling))
    (out / "scenes.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
