"""Scores a shapes model on fresh scenes, all through jaxphoton (see `jaxphoton.measure.shapes.scoring`).

    python scripts/eval_shapes.py --seed 1 --scenes 200 --json

The last line is a JSON object of the scores. `jaxphoton quality` compares forms of one model by the same scores.
"""

from __future__ import annotations

import argparse
import json

from jaxphoton import Moondream
from jaxphoton.measure.shapes.scoring import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shapes", help="'shapes' or the folder of another shapes model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--resize", choices=["exact", "fast"], help="of pictures (default: the model's)")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    with Moondream.from_pretrained(str(args.model), resize=args.resize) as model:
        scores = evaluate(model, args.seed, args.scenes)
    if not args.json:
        for name, value in scores.items():
            print(f"{name:<14} {value:.4f}")
    print(json.dumps({name: round(value, 4) for name, value in scores.items()}))


if __name__ == "__main__":
    main()
