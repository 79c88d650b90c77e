"""Several engine processes behind real HTTP: streams, leaving, deadlines, limits, and deaths on the way."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

import httpx2 as httpx
import pytest

from jaxphoton.batch.workers import supervisor
from jaxphoton.batch.workers.inprocess import EngineOptions
from jaxphoton.requests import async_calls
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.errors import EngineStartError, ModelClosed
from jaxphoton.server.batch_states import ENDED
from jaxphoton.server.batching import Batches
from jaxphoton.server.replicas import ReplicaBackend
from jaxphoton.server.service import Service
from tests.image.pools import S, needs_proc, running, until
from tests.server.serving import EXAMPLES, data_address
from tests.server.test_life import begun, told

FAKES = ("-m", "tests.batch.workers.fake_child")
GREEDY = {"temperature": 0.0}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.01)


@pytest.fixture
def start(serve):
    """A server before fake processes; `lines` is what these say, `backend` the last one."""
    opened = []

    def start(how: str = "well", processes: int = 2, rows: int = 32, max_waiting: int | None = None) -> str:
        start.backend = ReplicaBackend(
            (None,) * processes,
            {"path_or_id": how},
            EngineOptions(rows),
            max_waiting,
            log=start.lines.append,
            command=FAKES,
        )
        opened.append(start.backend)
        service = Service(start.backend, ["fake"])
        service.start()
        return serve(service)

    start.lines = []
    yield start
    for backend in opened:
        backend.close()


def body(image: str, **more):
    """Of a question about a picture that is a text, which the fakes answer with."""
    return {"question": "why?", "image_url": base64.b64encode(image.encode()).decode(), **more}


def ask(address: str, image: str, **more) -> httpx.Response:
    return httpx.post(f"{address}/v1/query", json=body(image, **more), timeout=S)


def given_up(start) -> int:
    return sum(line.endswith("an ask was given up") for line in start.lines)


async def ask_many(address: str, images, connections: int = 16, answered=lambda count: None) -> dict:
    """The responses by image."""
    found, waiting = {}, iter(images)

    async def work(client: httpx.AsyncClient) -> None:
        for image in waiting:
            found[image] = await client.post(f"{address}/v1/query", json=body(image), timeout=S)
            answered(len(found))

    async with httpx.AsyncClient() as client:
        await asyncio.gather(*(work(client) for _ in range(connections)))
    return found


def test_answers_come_from_all_processes_with_what_was_asked(start):
    address = start()
    found = asyncio.run(ask_many(address, [f"a picture {number}" for number in range(60)]))
    assert len(found) == 60
    for image, response in found.items():
        assert (response.status_code, response.json()["answer"]) == (200, image)
    answer = ask(address, "fine", priority=3).json()
    assert answer["asked"] == ["query", {"question": "why?"}, 3] and answer["finish_reason"] == "stop"


def test_a_stream_is_told_in_pieces(start):
    text = ask(start(), "a picture of text", stream=True).text
    events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]
    *pieces, end = events  # those that wait for the loop come as one
    assert "".join(event["chunk"] for event in pieces) == "apictureoftext" and end["completed"]
    assert not any(event["completed"] for event in pieces)


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_leaves_gives_up_the_work_in_the_process(start, stream):
    address = start(processes=1)

    async def leave() -> None:
        async with httpx.AsyncClient() as client, asyncio.timeout(S):
            async with client.stream("POST", f"{address}/v1/query", json=body("slow", stream=True)) as response:
                await anext(response.aiter_lines())
            assert start.backend.occupancy().alive == 1

    async def give_up() -> None:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(f"{address}/v1/query", json=body("slow"), timeout=0.5)

    asyncio.run(leave() if stream else give_up())
    until(lambda: given_up(start) == 1, "the process has ended it")
    assert ask(address, "fine").json()["answer"] == "fine"
    until(lambda: httpx.get(f"{address}/v1/stats").json()["requests"] == 0, "no request is under way")


def test_deadlines_are_kept(start):
    response = ask(start(), "slow", timeout=0.2)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_a_deadline_holds_even_where_no_process_answers(start, monkeypatch):
    monkeypatch.setattr(async_calls, "LEEWAY_S", 0.05)
    address = start(processes=1)
    os.kill(start.backend.pids[0], signal.SIGSTOP)
    for stream in (False, True):
        response = ask(address, "fine", timeout=0.2, stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_what_came_in_time_may_be_read_later(start, monkeypatch):
    """A deadline is that of the answer, and not of whoever reads it."""
    monkeypatch.setattr(async_calls, "LEEWAY_S", 0.0)
    start(processes=1)

    async def main() -> str:
        import time

        read = ""
        deadline = time.monotonic() + 1.0
        async for event in start.backend.events(b"a picture", Ask("query", deadline=deadline)):
            if not read:  # all of it is there
                while time.monotonic() < deadline:
                    await asyncio.sleep(0.05)
            read += event.get("chunk", "")
        return read

    assert asyncio.run(main()) == "apicture"


def test_more_than_may_wait_are_refused(start):
    address = start(processes=2, rows=1, max_waiting=1)
    assert start.backend.most_requests == 4

    async def main() -> httpx.Response:
        async with httpx.AsyncClient(timeout=S) as client:
            url = f"{address}/v1/query"
            slow = [asyncio.create_task(client.post(url, json=body("slow"))) for _ in range(4)]
            while httpx.get(f"{address}/v1/stats").json()["requests"] < 4:
                await asyncio.sleep(0.01)
            refused = await client.post(url, json=body("fine"))
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            return refused

    response = asyncio.run(main())
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert int(response.headers["Retry-After"]) >= 1
    until(lambda: given_up(start) == 4, "all four are given up")


def test_a_list_waits_for_room_itself(start):
    start(processes=1, rows=1, max_waiting=1)
    images = [f"picture {number}".encode() for number in range(30)]

    async def main():
        return await start.backend.call(images, Ask("query", {"question": "why?"}))

    assert [result["answer"].encode() for result in asyncio.run(main())] == images


def test_a_process_that_is_killed_loses_no_request(start):
    address = start()
    until(lambda: start.backend.occupancy().alive == 2, "both are ready")
    killed = []

    def answered(count: int) -> None:
        if count == 30 and not killed:
            killed.append(start.backend.pids[0])
            os.kill(killed[0], signal.SIGKILL)

    images = [f"a picture {number}" for number in range(300)]
    found = asyncio.run(ask_many(address, images, answered=answered))
    assert {image: response.json().get("answer") for image, response in found.items()} == {i: i for i in images}
    assert any("has died" in line for line in start.lines)

    def health():
        return httpx.get(f"{address}/health").json()

    until(lambda: health()["processes_alive"] == 2, "another was started in its place")
    assert (health()["processes"], health()["status"]) == (2, "ok")
    assert killed[0] not in start.backend.pids
    stats = httpx.get(f"{address}/v1/stats").json()
    assert (stats["requests"], stats["processes"], stats["processes_alive"]) == (0, 2, 2)


@pytest.mark.parametrize("seed", range(3))
def test_asking_leaving_and_dying_at_random_leaves_nothing_behind(start, seed):
    address, chance, ends = start(), random.Random(seed), Counter()

    async def one(client: httpx.AsyncClient, number: int) -> None:
        kind = chance.choice(["plain", "stream", "late", "leave", "leave", "leave stream"])
        image = f"a picture {number}" if kind in ("plain", "stream") else "slow"
        sent = body(image, stream="stream" in kind) | ({"timeout": 0.05} if kind == "late" else {})
        try:
            async with asyncio.timeout(0.05 if "leave" in kind else S):
                response = await client.post(f"{address}/v1/query", json=sent)
        except TimeoutError:
            assert "leave" in kind
            ends["left"] += 1
        except httpx.TransportError:  # a stream whose process died
            assert kind == "stream"
            ends["broken off"] += 1
        else:
            code = response.json()["error"]["code"] if response.status_code != 200 else None
            assert code in {"late": ("deadline_exceeded",), "plain": (None,), "stream": (None,)}[kind], response.text
            ends[kind] += 1

    async def main() -> None:
        async with httpx.AsyncClient(timeout=S) as client:
            for number in range(4):
                tasks = [asyncio.create_task(one(client, 40 * number + each)) for each in range(40)]
                if number == 1 and start.backend.pids:
                    os.kill(chance.choice(start.backend.pids), signal.SIGKILL)
                await asyncio.gather(*tasks)

    asyncio.run(main())
    assert sum(ends.values()) == 160 and min(ends["left"], ends["plain"], ends["stream"], ends["late"]) > 0
    until(lambda: httpx.get(f"{address}/v1/stats").json()["requests"] == 0, "no request is under way")
    until(lambda: start.backend.running().unfinished == 0, "none is in a process")
    assert ask(address, "fine").json()["answer"] == "fine"


def test_what_kills_two_processes_fails_alone(start):
    address = start()
    images = [f"a picture {number}" for number in range(40)]
    found = asyncio.run(ask_many(address, ["dies", *images]))
    error = found.pop("dies")
    assert error.status_code == 400 and error.json()["error"]["code"] == "process-died"
    assert {image: response.json().get("answer") for image, response in found.items()} == {i: i for i in images}


def test_a_stream_in_the_middle_of_which_a_process_dies_is_broken_off(start, caplog):
    address, read = start(), []
    with pytest.raises(httpx.TransportError):
        with httpx.stream("POST", f"{address}/v1/query", json=body("a b dies", stream=True), timeout=S) as response:
            for line in response.iter_lines():
                read.append(line)
    assert ['{"chunk":"a' in read[0], response.status_code] == [True, 200]
    assert not any('"completed":true' in line for line in read)
    (told,) = caplog.records
    assert "in the middle of an answer" in told.getMessage() and told.exc_info is None


def test_where_no_process_is_left_the_server_says_so(start, monkeypatch):
    monkeypatch.setattr(supervisor, "MOST_DEATHS", 1)
    address = start(processes=1)
    os.kill(start.backend.pids[0], signal.SIGKILL)
    until(lambda: httpx.get(f"{address}/health").status_code == 503, "it has failed")
    health = httpx.get(f"{address}/health").json()
    assert (health["status"], health["ready"]) == ("failed", False) and "no engine process is left" in health["reason"]
    response = ask(address, "fine")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_failed")


def test_a_model_that_cannot_be_loaded_is_told(start):
    with pytest.raises(EngineStartError, match="no such model"):
        start("refused")


def test_starting_can_be_broken_off(start, tmp_path):
    backend = ReplicaBackend(
        (None,), {"path_or_id": str(tmp_path / "never")}, EngineOptions(), command=FAKES, log=start.lines.append
    )
    raised = []

    def begin() -> None:
        try:
            backend.start()
        except ModelClosed as error:
            raised.append(error)

    thread = threading.Thread(target=begin)
    thread.start()
    until(lambda: "replica 0: loading" in start.lines, "it loads")
    assert backend.occupancy() is None and backend.failure is None
    backend.close()
    thread.join(S)
    assert len(raised) == 1 and backend.pids == [] and backend.failure is None
    with pytest.raises(ModelClosed):
        backend.start()


@needs_proc
def test_the_command_with_a_process_of_its_own(picture):
    body = {"image_url": picture, "settings": GREEDY}
    with begun("--port", "0", "--replicas", "1") as process:
        try:
            address = told(process, "has a page").split()[2]
            told(process, "ready")
            assert httpx.get(f"{address}/health").json()["processes_alive"] == 1
            before = httpx.post(f"{address}/v1/caption", json=body, timeout=S).json()["caption"]
            (child,) = children(process.pid)
            os.kill(child, signal.SIGKILL)
            assert "started again" in told(process, "has died")
            assert httpx.post(f"{address}/v1/caption", json=body, timeout=S).json()["caption"] == before
            (child,) = children(process.pid)
            process.send_signal(signal.SIGTERM)
            assert process.wait(S) == 0
            until(lambda: not running(child), "the process has ended too")
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    """The engine processes of a server."""
    texts = (task.joinpath("children").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    return [int(number) for text in texts for number in text.split()]


@pytest.mark.slow
def test_two_processes_with_the_small_model(serve, address, picture):
    """As one answers; one that leaves frees its row there; and one process killed in the middle."""
    backend = ReplicaBackend((None, None), {"path_or_id": "shapes"}, EngineOptions(), log=lambda line: None)
    service = Service(backend, ["shapes"])
    try:
        service.start()
        several = serve(service)
        caption = {"image_url": picture, "length": "long", "settings": GREEDY}
        streams = [httpx.post(f"{each}/v1/caption", json=caption | {"stream": True}, timeout=S).text for each in
                   (address, several)]  # fmt: skip
        pieces = [[json.loads(line[6:]).get("chunk", "") for line in text.split("\n\n") if line] for text in streams]
        assert "".join(pieces[0]) == "".join(pieces[1]) != ""
        messages = [{"role": "user", "content": [{"type": "text", "text": "How many circles?"},
                                                 {"type": "image_url", "image_url": {"url": picture}}]}]  # fmt: skip
        chat = {"messages": messages, "logprobs": True, "temperature": 0}
        one, two = (httpx.post(f"{each}/v1/chat/completions", json=chat, timeout=S).json()["choices"]
                    for each in (address, several))  # fmt: skip
        assert [each["message"] for each in one] == [each["message"] for each in two]
        tokens = [[token["token"] for token in each[0]["logprobs"]["content"]] for each in (one, two)]
        assert tokens[0] == tokens[1] and tokens[0]
        with httpx.stream("POST", f"{several}/v1/caption", json=caption | {"stream": True}, timeout=S) as response:
            next(response.iter_lines())

        def idle() -> bool:
            stats = httpx.get(f"{several}/v1/stats").json()
            return (stats["requests"], stats["running"], stats["waiting"]) == (0, 0, 0)

        until(idle, "its row is free")
        until(lambda: httpx.get(f"{several}/health").json()["processes_alive"] == 2, "both are ready")
        scenes = [data_address(path) for path in sorted(EXAMPLES.glob("scene_*.png"))] * 6
        wanted = {scene: httpx.post(f"{address}/v1/caption", json=caption | {"image_url": scene}, timeout=S).json()
                  for scene in set(scenes)}  # fmt: skip

        async def load() -> list:
            async with httpx.AsyncClient(timeout=S) as client:
                tasks = [client.post(f"{several}/v1/caption", json=caption | {"image_url": each}) for each in scenes]
                tasks = [asyncio.create_task(task) for task in tasks]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                os.kill(backend.pids[0], signal.SIGKILL)
                return await asyncio.gather(*tasks)

        for scene, response in zip(scenes, asyncio.run(load()), strict=True):
            assert response.json().get("caption") == wanted[scene]["caption"], response.text
    finally:
        backend.close()


def test_a_batch_goes_through_the_processes_which_go_on(start, tmp_path, monkeypatch):
    """Also where one of them dies."""
    monkeypatch.setattr("jaxphoton.weights.hub.resolve", lambda name, revision=None: Path(name))
    monkeypatch.setattr("jaxphoton.weights.hub.check", lambda path: None)
    monkeypatch.setattr("jaxphoton.batch.model.model_digest", lambda path: "digest")
    images = [f"picture {number}" for number in range(40)]
    lines = [
        {"custom_id": image, "url": "/v1/query", "body": body(image, settings={"max_tokens": 5})} for image in images
    ]
    address = start()
    with Batches(tmp_path / "data", start.backend) as batches:
        content = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
        file = batches.files.add(content, "in.jsonl", "batch")["id"]
        number = batches.create("/v1/query", file, "24h", None)["id"]
        os.kill(start.backend.pids[0], signal.SIGKILL)
        until(lambda: batches.states.get(number)["status"] in ENDED, "the end of the batch")
        batch = batches.states.get(number)
        assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 40)
        answers = batches.files.path(batch["output_file_id"]).read_text().splitlines()
        assert [json.loads(line)["custom_id"] for line in answers] == images
    assert ask(address, "fine").status_code == 200


def test_a_batch_waits_no_longer_for_processes_that_cannot_start(tmp_path):
    backend = ReplicaBackend((None,), {"path_or_id": "refused"}, EngineOptions(4), command=FAKES, log=lambda line: None)
    with pytest.raises(EngineStartError):
        backend.start()
    with pytest.raises(ModelClosed):
        backend.running()
    backend.close()
