#!/usr/bin/env bash
# Pillow 13.0.0 (and 11.3, 12.3): white becomes black in colour JPEG 2000 of more than 8 bits, without a word.
#
# A lossless 16-bit RGB file with a ramp from 0 to 65535 is written and read back by imagecodecs (OpenJPEG, as Pillow
# has it), which shows that the file is valid. Pillow rounds each sample to 8 bits by adding half a step and shifting;
# the sum is not clipped, so 65408 and above come out as 0. Grey files of 16 bits keep their bits and are right.
# Why it matters here: skies and paper of scans and of medical or cinema pictures turn black or take another colour, and
# nothing could tell from the result. Such files are refused by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import io
import sys

import imagecodecs
import numpy as np
import PIL
from PIL import Image, features

print(f"Pillow {PIL.__version__}, OpenJPEG {features.version('jpg_2000')}, imagecodecs {imagecodecs.__version__}")
ramp = np.linspace(0, 65535, 64).astype(np.uint16)
ramp[-2] = 65407
written = np.broadcast_to(ramp[None, :, None], (64, 64, 3)).copy()
file = imagecodecs.jpeg2k_encode(written, level=0)
assert np.array_equal(imagecodecs.jpeg2k_decode(file), written)
shown = np.asarray(Image.open(io.BytesIO(file)))[0, :, 0]
for place in (0, 32, 61, 62, 63):
    print(f"sample {ramp[place]:>5} of 65535: shown as {shown[place]:>3} of 255, expected about {ramp[place] / 257:.0f}")
if not (shown[62] == 255 and shown[63] == 0):
    sys.exit("the behaviour is no longer seen")
PYTHON
