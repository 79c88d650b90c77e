"""Many machines on this one, and what is left when they fail: python -m benchmarks.room

Needs the extra `ray`, and no GPU. A head and two nodes of Ray are plain processes here, with the shipped model.
  kills: small drawn pictures, some of them broken, are captioned with a checkpoint. On the way an actor is killed, then
    all processes of a node (another node joins), then the driver, which is started again. Every picture must be
    answered once, with the answer of a single process.
  rate: pictures a second of 1, 2 and 4 actors, and processor milliseconds a picture, beside those of a single process
    and of the same run with actors that hand their rows back. Actors share the cores of this machine: only processor
    time says something of others.

Where `unshare` is allowed, all this has a network of its own, in which there is only this. The exit code is 1 if the
kills have shown a fault.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.room.cluster import Cluster
from benchmarks.room.kills import CPUS, show_kills
from benchmarks.room.rate import show_rate
from jaxphoton.measure.shapes.scenes import make_scene

BROKEN_EVERY = 100
NETWORK = "RAY_ROOM_NETWORK"
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.room", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="(default: 5000)")
    parser.add_argument("--kills", nargs="*", choices=["actor", "node", "driver"], default=["actor", "node", "driver"])
    parser.add_argument("--only", choices=["kills", "rate"], help="one part")
    parser.add_argument("--turns", type=int, default=5, help="of the rate (default: 5)")
    parser.add_argument("--rate-images", type=int, default=600, help="that are captioned a turn (default: 600)")
    args = parser.parse_args()
    enter_network()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    good = True
    with tempfile.TemporaryDirectory() as folder, Cluster({"JAX_PLATFORMS": "cpu"}) as cluster:
        place = Path(folder)
        images = draw(place / "images", args.images)
        for _ in range(2):
            cluster.add_node(CPUS)
        if args.only != "rate":
            good = show_kills(cluster, place, images, args.kills, args.images // BROKEN_EVERY)
        if args.only != "kills":
            show_rate(cluster, place, draw(place / "few", args.rate_images), images, args.turns)
    return 0 if good else 1


def draw(folder: Path, count: int) -> Path:
    """Pictures of 64 x 64 with one to three objects, of which every hundredth is broken."""
    folder.mkdir()
    for number in range(count):
        file = folder / f"{number:06}.png"
        if number % BROKEN_EVERY == BROKEN_EVERY - 1:
            file.write_bytes(b"not an image")
        else:
            scene = make_scene(np.random.default_rng(number), (1, 1), (64, 64), 1 + number % 3)
            Image.fromarray(scene.pixels).save(file)
    return folder


def enter_network() -> None:
    """Goes on in a network in which there is the loopback alone: Ray listens on all addresses."""
    if os.environ.get(NETWORK) == "own":
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
    elif NETWORK not in os.environ:
        unshare = ["unshare", "--net", "--map-root-user"]
        allowed = not subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode
        os.environ[NETWORK] = "own" if allowed else "shared"
        again = [sys.executable, "-m", "benchmarks.room", *sys.argv[1:]]
        os.execvp(unshare[0] if allowed else again[0], [*unshare, *again] if allowed else again)


if __name__ == "__main__":
    raise SystemExit(main())
