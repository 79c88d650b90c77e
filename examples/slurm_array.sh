#!/bin/bash
# Captions a folder (or any other input) with a Slurm array, one GPU a task:
#
#   SHARDS=8 INPUT=/data/photos OUT=/data/captions sbatch --array=0-7 examples/slurm_array.sh
#
# Each task does its shard and has a journal of its own. Submit the same again after a failure, a preemption or the time
# limit: what is done is not done again, and a shard that is complete ends at once. The tasks that failed alone also
# work (--array=3,5): SHARDS, not the size of the array, says how many parts there are. When all have ended:
#
#   cat /data/captions/part-*.jsonl > captions.jsonl
#
#SBATCH --job-name=jaxphoton
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
# Two minutes before the limit, the signal of a Ctrl-C: what is under way is finished and the journal closed.
#SBATCH --signal=B:INT@120
set -euo pipefail

: "${SHARDS:?how many parts the input has, such as 8}" "${INPUT:?the images}" "${OUT:?a folder for the captions}"
MODEL=${MODEL:-vikhyatk/moondream2}
index=${SLURM_ARRAY_TASK_ID:?submit this with sbatch --array=0-$((SHARDS - 1))}
if ((index >= SHARDS)); then
    echo "array task $index is outside 0-$((SHARDS - 1)), the shards of SHARDS=$SHARDS" >&2
    exit 1
fi

mkdir -p "$OUT"
# Beside the results, so that all nodes share what one has compiled.
export JAXPHOTON_CACHE=${JAXPHOTON_CACHE:-$OUT/cache}
part=$(printf '%s/part-%05d-of-%05d.jsonl' "$OUT" "$index" "$SHARDS")
# exec: the signal goes to jaxphoton itself. Exit code 2: done, but some images failed.
exec jaxphoton caption "$INPUT" --out "$part" --model "$MODEL" --shard "$index/$SHARDS" --quiet "$@"
