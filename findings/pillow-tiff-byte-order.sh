#!/usr/bin/env bash
# Pillow 13.0.0 (and 11.3, 12.3): packed big-endian TIFFs of signed 16-bit, signed 32-bit or float samples are read with
# their bytes swapped, without a word.
#
# The same ramp is written by tifffile four times: little- and big-endian, plain and with Deflate. tifffile reads all
# four alike. Pillow asks libtiff to unpack, which hands the numbers over in the byte order of the machine, and then
# swaps them as if they lay as in the file; for unsigned 16 bits it takes this into account.
# Why it matters here: elevation models, microscopy and scans come in such files; what Pillow shows is noise, which a
# model then describes. The reading is corrected before the pixels are loaded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import io
import sys

import numpy as np
import PIL
import tifffile
from PIL import Image, features

print(f"Pillow {PIL.__version__}, libtiff {features.version('libtiff')}, tifffile {tifffile.__version__}")
wrong = []
for kind in (np.uint16, np.int16, np.int32, np.float32):
    ramp = np.linspace(0, 1000, 64 * 64).reshape(64, 64).astype(kind)
    for order, packing in (("<", None), (">", None), ("<", "zlib"), (">", "zlib")):
        file = io.BytesIO()
        tifffile.imwrite(file, ramp, byteorder=order, compression=packing)
        assert np.array_equal(tifffile.imread(io.BytesIO(file.getvalue())), ramp)
        shown = np.asarray(Image.open(io.BytesIO(file.getvalue())))
        right = np.array_equal(shown.astype(np.float64), ramp.astype(np.float64))
        if not right:
            wrong.append((np.dtype(kind).name, order, packing))
            print(f"{wrong[-1]}: written {ramp[32, 31:34]}, shown {shown[32, 31:34]}")
if wrong != [(name, ">", "zlib") for name in ("int16", "int32", "float32")]:
    sys.exit(f"the behaviour is no longer seen: {wrong}")
PYTHON
