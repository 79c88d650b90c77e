"""A server under load, with the shipped model on this machine: PYTHONPATH=. python benchmarks/serve_load.py

Three parts, of which the last two say nothing of other machines:
  load: 2,000 requests over 64 connections; a tenth of the clients leave at a random moment, one body in a hundred is
    broken. Every answer must be that of a single request, nothing may be held at the end, and memory must stay.
  rate: captions streamed to 16 clients over HTTP, and the same through `AsyncMoondream`, in turns.
  burst: 200 captions asked for at once; seconds to the first token.

Clients run in a process of their own. The exit code is 1 if the load has shown a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "examples" / "shapes").glob("scene_*"))
ASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("caption", {"length": "short"}),
    ("caption", {"length": "normal", "stream": True}),
    ("query", {"question": "How many objects are there?", "stream": True}),
    ("detect", {"object": "fish"}),
    ("point", {"object": "fish"}),
)
BROKEN = (b"", b"{", b'{"image_url": "AAAA"}', b'{"image_url": "?"}', b"[]", b'{"image_url": "AAAA", "settings": 1}')
GREEDY = {"temperature": 0.0, "max_tokens": 60}


@dataclass(frozen=True)
class Case:
    """A request: its path, and its body as bytes."""

    path: str
    body: bytes


@dataclass
class Found:
    """What came of a load: how many were answered as a single request is, were refused as they should be, and left;
    and what went wrong."""

    equal: int = 0
    refused: int = 0
    left: int = 0
    faults: list[str] = field(default_factory=list)


def cases(pictures: Sequence[Path] = PICTURES) -> list[Case]:
    """Every ask about every picture."""
    found = []
    for picture in pictures:
        kind = "jpeg" if picture.suffix == ".jpg" else "png"
        address = f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"
        for skill, arguments in ASKS:
            body = {"image_url": address, "settings": GREEDY, **arguments}
            found.append(Case(f"/v1/{skill}", json.dumps(body).encode()))
    return found


async def asked(session: aiohttp.ClientSession, case: Case) -> tuple[int, Any]:
    """The status, and what was answered: of a stream its text, and what does not depend on the moment."""
    async with session.post(case.path, data=case.body) as reply:
        text = await reply.text()
        if reply.content_type != "text/event-stream":
            answer = json.loads(text)
            for name in ("request_id", "metrics"):
                answer.pop(name, None)
            return reply.status, answer
        events = [json.loads(event[6:]) for event in text.split("\n\n") if event]
        assert events[-1]["completed"]
        return reply.status, "".join(event.get("chunk", "") for event in events)


def session_to(address: str, connections: int) -> aiohttp.ClientSession:
    limit = aiohttp.TCPConnector(limit=connections)
    return aiohttp.ClientSession(address, connector=limit, timeout=aiohttp.ClientTimeout(total=300))


async def single(address: str, asks: Sequence[Case]) -> list[Any]:
    """What each is answered, one after the other."""
    async with session_to(address, 1) as session:
        return [(await asked(session, case))[1] for case in asks]


async def load(
    address: str, asks: Sequence[Case], wanted: Sequence[Any], requests: int, connections: int, first: int = 0
) -> Found:
    """Asks so many times, over so many connections.

    Args:
      wanted: the answers.
      first: the number of the first request: with another one, others leave.
    """
    found, numbers = Found(), iter(range(first, first + requests))

    async def client() -> None:
        for number in numbers:
            chance = random.Random(number)
            which = chance.randrange(len(asks))
            if (lot := chance.random()) < 0.01:
                await broken(chance)
            elif lot < 0.11:
                await leaves(asks[which], chance)
            else:
                await stays(which)

    async def broken(chance: random.Random) -> None:
        case = Case("/v1/caption", chance.choice(BROKEN))
        status, answer = await asked(session, case)
        if status == 400 and answer["error"]["message"]:
            found.refused += 1
        else:
            found.faults.append(f"{case.body!r}: {status} {answer}")

    async def leaves(case: Case, chance: random.Random) -> None:
        task = asyncio.create_task(asked(session, case))
        await asyncio.wait({task}, timeout=chance.uniform(0, 0.3))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found.left += 1

    async def stays(which: int) -> None:
        try:
            status, answer = await asked(session, asks[which])
        except (aiohttp.ClientError, AssertionError, ValueError) as error:
            status, answer = 0, repr(error)
        if (status, answer) == (200, wanted[which]):
            found.equal += 1
        else:
            found.faults.append(f"{asks[which].path} {which}: {status} {answer}, and not {wanted[which]}")

    async with session_to(address, connections) as session:
        await asyncio.gather(*(client() for _ in range(connections)))
    return found


async def burst(address: str, asks: Sequence[Case], count: int) -> list[float]:
    """Seconds to the first token of so many streams begun at once."""

    async def first(case: Case) -> float:
        began = time.monotonic()
        async with session.post(case.path, data=case.body) as reply:
            await reply.content.readline()
            seconds = time.monotonic() - began
            await reply.read()
            return seconds

    async with session_to(address, count) as session:
        return sorted(await asyncio.gather(*(first(asks[number % len(asks)]) for number in range(count))))


def captions() -> list[Case]:
    return [case for case in cases() if case.path == "/v1/caption" and b'"stream": true' in case.body]


async def streams(address: str, count: int, at_once: int) -> float:
    """Captions a second."""
    asks, numbers = captions(), iter(range(count))
    async with session_to(address, at_once) as session:

        async def client() -> None:
            for number in numbers:
                await asked(session, asks[number % len(asks)])

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(at_once)))
        return count / (time.monotonic() - began)


async def called(model: Any, count: int, at_once: int) -> float:
    """The same through the Python API."""
    pictures, numbers = [picture.read_bytes() for picture in PICTURES], iter(range(count))

    async def client() -> None:
        for number in numbers:
            async for _ in model.stream_caption(pictures[number % len(pictures)], settings=GREEDY):
                pass

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return count / (time.monotonic() - began)


# The server's side


@contextmanager
def served():
    """A listener, its address, the model and the loop, all in this process."""
    from jaxphoton import Moondream
    from jaxphoton.server.backend import LocalBackend
    from jaxphoton.server.listening import Listener, bound
    from jaxphoton.server.options import ServerOptions
    from jaxphoton.server.service import Service

    with Moondream.from_pretrained("shapes") as model, bound("127.0.0.1", 0) as socket:
        service = Service(LocalBackend(model), ["shapes"])
        service.start()
        listener = Listener(service, ServerOptions())
        socket.listen(1024)  # before the thread does it
        thread = threading.Thread(target=listener.run, args=([socket],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}", model, listener
        finally:
            listener.stop()
            thread.join()


def client(part: str, address: str, *arguments: Any) -> Any:
    """What a part of the clients' side has found, in a process of its own."""
    command = [sys.executable, __file__, "--client", part, address, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def memory() -> float:
    """MiB that this process has in memory now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def show_load(address: str, model: Any, listener: Any) -> bool:
    """Whether there was no fault."""
    wanted = client("single", address)
    client("load", address, 300, 64, 10_000, json.dumps(wanted))
    used, good = [], True
    for first in (0, 1000):
        began = time.monotonic()
        found = client("load", address, 1000, 64, first, json.dumps(wanted))
        seconds = time.monotonic() - began
        assert model.engine.drain(60)
        used.append(memory())
        faults = found.pop("faults")
        good = good and not faults
        print(f"load: {found}, {len(faults)} faults, {seconds:.1f} s, memory {used[-1]:.1f} MiB", flush=True)
        print(*faults[:3], sep="\n", end="\n" * bool(faults))
    now = model.engine.metrics()
    held = now.pages_held - model.engine.scheduler.prefixes.evictable
    tasks = len(asyncio.all_tasks(listener._loop)) - 1  # less the listener's own
    growth = used[1] / used[0] - 1
    print(f"load: {now.running} rows, {now.waiting} waiting, {held} pages, {tasks} tasks left; memory {growth:+.1%}")
    return good and not (now.running or now.waiting or held or tasks) and growth < 0.03


def show_rate(address: str, model: Any, turns: int) -> None:
    from jaxphoton import AsyncMoondream

    ratios, costs = [], []
    for turn in range(turns):
        began = time.process_time()
        direct = asyncio.run(called(AsyncMoondream(model), 160, 16))
        between = time.process_time()
        over = client("streams", address, 160, 16)
        ended = time.process_time()
        ratios.append(over / direct)
        costs.append((ended - between) / (between - began))
        print(f"rate: turn {turn + 1}: {direct:.1f} captions/s by calls, {over:.1f} over HTTP", flush=True)
    print(f"rate: HTTP / calls {statistics.median(ratios):.2f} by the clock,", end=" ")
    print(f"processor time of the server {statistics.median(costs):.2f} (medians of {turns} turns)")


def show_burst(address: str, count: int) -> None:
    seconds = client("burst", address, count)
    p50, p90, p99 = (seconds[min(count - 1, int(count * share))] for share in (0.5, 0.9, 0.99))
    print(f"burst: {count} at once, first token after {p50:.2f} s (p50), {p90:.2f} s (p90), {p99:.2f} s (p99)")


def run_client(part: str, address: str, *arguments: str) -> Any:
    match part:
        case "single":
            return asyncio.run(single(address, cases()))
        case "load":
            *numbers, wanted = arguments
            requests, connections, first = map(int, numbers)
            return asdict(asyncio.run(load(address, cases(), json.loads(wanted), requests, connections, first)))
        case "streams":
            return asyncio.run(streams(address, *map(int, arguments)))
    return asyncio.run(burst(address, captions(), *map(int, arguments)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="of the rate (default: 5)")
    parser.add_argument("--only", choices=["load", "rate", "burst"], help="one part")
    parser.add_argument("--client", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        print(json.dumps(run_client(*args.client)))
        return 0
    good = True
    with served() as (address, model, listener):
        if args.only in (None, "load"):
            good = show_load(address, model, listener)
        if args.only in (None, "rate"):
            show_rate(address, model, args.turns)
        if args.only in (None, "burst"):
            show_burst(address, 200)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
