#!/usr/bin/env bash
# datasets 5.2.0 with pyarrow 26.0.1: load_dataset("json") changes texts that look like dates, without a word.
#
# Two JSON-lines files with the same keys, all values JSON strings. If every text of the second one is a date, a column
# that the first file has made a string column comes back with " 00:00:00" behind these texts. In the other order the
# column becomes a timestamp, and the first text that is no date ends the load.
# Why it matters here: the parts of a run are such files, and "What date is on the receipt?" has such answers. No way of
# writing JSON prevents it: the reader takes the type from the strings. Parquet keeps them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
printf '%s\n' '{"answer": "no date"}' > part-0.jsonl
printf '%s\n' '{"answer": "2024-05-01"}' '{"answer": "2024-05-02"}' > part-1.jsonl
HF_HOME="$folder/hf" HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import sys

import datasets
import pyarrow

print(f"datasets {datasets.__version__}, pyarrow {pyarrow.__version__}, Python {sys.version.split()[0]}")
datasets.disable_progress_bars()


def load(*files):
    return datasets.load_dataset("json", data_files=list(files), split="train")


loaded = load("part-0.jsonl", "part-1.jsonl")
print("written: ['no date', '2024-05-01', '2024-05-02']")
print("loaded: ", loaded["answer"][:], "as", loaded.features["answer"])
changed = loaded["answer"][:] == ["no date", "2024-05-01 00:00:00", "2024-05-02 00:00:00"]
try:
    load("part-1.jsonl", "part-0.jsonl")
    refused = False
except Exception as error:
    refused = True
    print("the other way round:", type(error).__name__, "from", error.__cause__ or error)
if not (changed and refused):
    sys.exit("the behaviour is no longer seen")
PYTHON
