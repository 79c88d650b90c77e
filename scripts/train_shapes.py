"""Train the `shapes` model: python scripts/train_shapes.py --out DIR --seed N [--resume]."""

import argparse
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from shapes.data import render_all
from shapes.tokenizer import train_tokenizer
from shapes.training import Trainer


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, log and result")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="rendered scenes, 5 GB (OUT/cache)")
    parser.add_argument("--images", type=int, default=230_000, help="pictures seen with language")
    parser.add_argument("--minutes", type=float, default=1e9, help="most minutes for the language part")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def work(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """Train in one process."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.processes)
    cache = options.cache or options.out / "cache"
    trainer = Trainer(options.out, cache, options.images, options.minutes, options.seed)
    if options.resume:
        trainer.load()
    trainer.run()
    dist.destroy_process_group()


def main() -> None:
    """Render the scenes, train, export."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    render_all(options.cache or options.out / "cache", options.seed)
    if not options.resume:
        train_tokenizer().save(str(options.out / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (options, f"{folder}/meeting"), nprocs=options.processes)
    from shapes.export import export

    export(options.out / "checkpoint.pt", options.out / "tokenizer.json", options.out / "model")


if __name__ == "__main__":
    main()
