"""Pictures prepared in worker processes: as in this process, whatever happens to the workers, and nothing left."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxphoton.config import VisionConfig
from jaxphoton.image.decode import ImageError
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import Prepared, prepare
from tests.image.files import photo, png16, saved

CONFIG = VisionConfig(crop_size=56, overlap_margin=1)
PICTURE = Image.fromarray(photo(120, 90))
PNG = saved(PICTURE, "PNG")
S = 120  # how long anything may take on a busy machine
ROOT = Path(__file__).parents[2]

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")


def until(condition, what: str):
    deadline = time.monotonic() + S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)
    return value


def same(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.crops.pixels, other.crops.pixels)
    assert one.crops.pixels.dtype == np.uint8 and one.crops.pixels.flags.writeable
    assert (one.crops.tiling, one.digest, one.size, one.notes) == (
        other.crops.tiling,
        other.digest,
        other.size,
        other.notes,
    )


def running(pid: int) -> bool:
    """Neither gone nor waiting to be reaped."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Gate:
    """A named pipe: whoever decodes it is stuck until `open`, which may give it a picture."""

    def __init__(self, path: Path):
        os.mkfifo(path)
        self.path = path
        self._writers: list[int] = []

    def entered(self) -> None:
        """Waits until a worker is stuck in it."""

        def writer():
            # Fails while nobody reads.
            with contextlib.suppress(OSError):
                return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)

        self._writers.append(until(writer, f"a worker reads {self.path}"))

    def open(self, data: bytes = b"") -> None:
        if data:
            os.set_blocking(self._writers[-1], True)
            assert os.write(self._writers[-1], data) == len(data)
        while self._writers:
            os.close(self._writers.pop())

    def kill_inside(self, pool: ImagePool) -> None:
        """Kills the pool's only worker while it is stuck, and waits until the next is."""
        (pid,) = pool.worker_pids
        os.kill(pid, signal.SIGKILL)
        # The pid changes after the old worker was reaped, so that who reads now is the new one.
        until(lambda: pool.worker_pids not in ([], [pid]), "a new worker")
        self.entered()


@pytest.fixture(scope="module")
def pool():
    with ImagePool(CONFIG, 2) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def files() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 8
    frames = [Image.fromarray(photo(30, 40, seed)) for seed in range(3)]
    clear = PICTURE.convert("RGBA")
    clear.putalpha(77)
    return {
        "png": PNG,
        "jpeg": saved(PICTURE, "JPEG", quality=80),
        "turned": saved(PICTURE, "JPEG", exif=exif),
        "cmyk": saved(PICTURE.convert("CMYK"), "JPEG"),
        "webp": saved(PICTURE, "WEBP"),
        "gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "bmp": saved(PICTURE, "BMP"),
        "tiff": saved(PICTURE, "TIFF"),
        "grey16": png16(np.arange(35 * 50, dtype=np.uint16).reshape(35, 50) * 37),
        "clear": saved(clear, "PNG"),
        "palette": saved(PICTURE.quantize(), "PNG"),
        "dot": saved(PICTURE.resize((1, 1)), "PNG"),
        "long": saved(PICTURE.resize((3000, 2)), "PNG"),
    }


def test_files_and_bytes_as_in_this_process(pool, tmp_path):
    sources = []
    for name, data in files().items():
        path = tmp_path / f"ünï {name}"
        path.write_bytes(data)
        sources += [path, str(path), data, bytearray(data), memoryview(data)]
    # From a thread of its own: more pictures than the bound, and only their results free places.
    futures = [pool.submit(source) for source in sources]
    for source, future in zip(sources, futures, strict=True):
        same(future.result(S), prepare(source, CONFIG))


def test_other_sources_are_done_before_submit_returns(pool):
    for source in (PICTURE, np.asarray(PICTURE), io.BytesIO(PNG)):
        future = pool.submit(source)
        assert future.done()
        same(future.result(), prepare(PNG, CONFIG))
    with pytest.raises(TypeError):
        pool.submit(3).result(S)
    with pytest.raises(ImageError):
        pool.submit(io.BytesIO(b"")).result(S)


def test_errors_as_in_this_process(pool, tmp_path):
    (tmp_path / "short.png").write_bytes(PNG[:-300])
    page = b"<!doctype html><p>no</p>"
    sources = [tmp_path / "none.png", tmp_path, tmp_path / "short.png", "", "a\0b", b"\xff\xd8\xff", b"", page]
    futures = [pool.submit(source) for source in sources]
    for source, future in zip(sources, futures, strict=True):
        with pytest.raises(ImageError) as expected:
            prepare(source, CONFIG)
        error = future.exception(S)
        assert type(error) is ImageError
        assert error.args == expected.value.args
        assert (error.source, error.reason, error.fault) == expected.value.args
    assert str(pool.submit(page, name="page 7").exception(S)).startswith("page 7: ")


def test_options_reach_the_workers():
    clear = PICTURE.convert("RGBA")
    clear.putalpha(77)
    options = {"max_pixels": 20_000, "background": (255, 0, 9), "allow_truncated": True}
    with ImagePool(VisionConfig(), 1, **options) as pool:
        for data in (saved(clear, "PNG"), saved(PICTURE, "JPEG")[:-300]):
            same(pool.submit(data).result(S), prepare(data, VisionConfig(), **options))
        assert pool.submit(saved(PICTURE.resize((200, 200)), "PNG")).exception(S).reason == "too-large"
    with pytest.raises(ValueError, match="background"):
        ImagePool(CONFIG, 1, background=(1, 2, 300))
    with pytest.raises(ValueError, match="at least 1"):
        ImagePool(CONFIG, 0)


def test_relative_paths_are_those_of_the_moment(pool, tmp_path, monkeypatch):
    pool.submit(PNG).result(S)
    (tmp_path / "mine.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    future = pool.submit("mine.png")
    missing = pool.submit("other.png")
    monkeypatch.chdir("/")
    same(future.result(S), prepare(PNG, CONFIG))
    assert missing.exception(S).args == ("other.png", "not-found", "no such file")


def test_formats_that_only_this_process_knows(pool, monkeypatch):
    for table in ("OPEN", "MIME"):
        monkeypatch.setattr(Image, table, dict(getattr(Image, table)))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    Image.register_open("OURS", lambda file, name: PICTURE.copy(), lambda prefix: prefix.startswith(b"our format"))
    same(pool.submit(b"our format").result(S), prepare(PICTURE, CONFIG))


def test_a_killed_worker_is_replaced_and_the_picture_tried_again(gate):
    with ImagePool(CONFIG, 1) as pool:
        stuck, behind = pool.submit(gate.path), pool.submit(PNG)
        gate.entered()
        gate.kill_inside(pool)
        gate.open(PNG)
        same(stuck.result(S), prepare(PNG, CONFIG))
        same(behind.result(S), prepare(PNG, CONFIG))


def test_a_second_death_fails_that_picture_alone(gate):
    with ImagePool(CONFIG, 1) as pool:
        stuck, behind = pool.submit(gate.path), pool.submit(PNG)
        gate.entered()
        gate.kill_inside(pool)
        os.kill(*pool.worker_pids, signal.SIGKILL)
        error = stuck.exception(S)
        assert isinstance(error, ImageError) and error.source == str(gate.path)
        assert str(error) == f"{gate.path}: the process that decodes it died twice (killed by SIGKILL)"
        same(behind.result(S), prepare(PNG, CONFIG))


def test_idle_workers_may_die_as_often_as_they_like():
    with ImagePool(CONFIG, 1) as pool:
        for _ in range(3):
            same(pool.submit(PNG).result(S), prepare(PNG, CONFIG))
            (pid,) = pool.worker_pids
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not running(pid), "the worker is dead")


@needs_proc
def test_control_c_does_not_reach_workers():
    with ImagePool(CONFIG, 1) as pool:
        # The first one while it starts.
        (pid,) = until(lambda: pool.worker_pids, "a worker")
        os.kill(pid, signal.SIGINT)
        pool.submit(PNG).result(S)
        os.kill(pid, signal.SIGINT)
        pool.submit(PNG).result(S)
        assert pool.worker_pids == [pid]


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_workers_that_do_not_start(program, monkeypatch):
    monkeypatch.setattr(sys, "executable", program)
    with ImagePool(CONFIG, 1) as pool:
        for _ in range(2):
            error = pool.submit(PNG, name="mine").exception(S)
            assert isinstance(error, RuntimeError)
            assert re.match(r"mine: the image worker does not start \((exit status 1|.*No such file.*)\)", str(error))


def test_one_stuck_worker_does_not_stop_the_other(gate):
    with ImagePool(CONFIG, 2, slots=1) as pool:
        stuck = pool.submit(gate.path)
        gate.entered()
        for _ in range(5):
            pool.submit(PNG).result(S)
        gate.open(PNG)
        same(stuck.result(S), prepare(PNG, CONFIG))


def test_submit_waits_at_the_bound(gate):
    with ImagePool(CONFIG, 1, slots=1, bound=2) as pool:
        first, second, third = pool.submit(gate.path), pool.submit(PNG), []
        gate.entered()
        thread = threading.Thread(target=lambda: third.append(pool.submit(PNG)))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not first.done() and not second.done()
        gate.open()
        assert first.exception(S).reason == "empty"
        thread.join(S)
        same(third[0].result(S), second.result(S))


def test_waiting_pictures_can_be_cancelled_and_free_their_place(gate):
    with ImagePool(CONFIG, 1, slots=1, bound=2) as pool:
        stuck = pool.submit(gate.path)
        gate.entered()
        for _ in range(10):
            waiting = pool.submit(PNG)
            assert waiting.cancel()
        assert not stuck.cancel()
        last = pool.submit(PNG)
        gate.open()
        assert last.result(S).size == (120, 90)
        with pytest.raises(CancelledError):
            waiting.result(S)


def test_closing_a_busy_pool(gate):
    pool = ImagePool(CONFIG, 1, slots=1, bound=2)
    stuck, waiting, refused = pool.submit(gate.path), pool.submit(PNG), []

    def submit():
        try:
            pool.submit(PNG)
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    gate.entered()
    pids = pool.worker_pids
    pool.close()
    pool.close()
    thread.join(S)
    assert refused == ["the image pool is closed"]
    for future in (stuck, waiting):
        error = future.exception(S)
        assert isinstance(error, RuntimeError) and str(error) == "the image pool is closed"
    for source in (PNG, PICTURE):
        with pytest.raises(RuntimeError, match="closed"):
            pool.submit(source)
    assert pids and not pool.worker_pids
    assert not any(exists(pid) for pid in pids)


def test_a_callback_may_close_the_pool():
    pool = ImagePool(CONFIG, 1)
    closed = threading.Event()
    future = pool.submit(saved(PICTURE.resize((700, 700)), "PNG"))
    future.add_done_callback(lambda _: (pool.close(), closed.set()))
    assert closed.wait(S)
    pool.close()
    assert not pool.worker_pids


def traces() -> tuple[list[str], list[str], set[str], str]:
    """Open files, threads, files in shared memory, children (dead ones included)."""
    descriptors = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            descriptors.append(f"{entry} {os.readlink(f'/proc/self/fd/{entry}')}")
    threads = sorted(thread.name for thread in threading.enumerate())
    shared = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        children = "some"
    except ChildProcessError:
        children = "none"
    return sorted(descriptors), threads, {name for name in shared if "jaxphoton" in name}, children


@needs_proc
def test_nothing_is_left_behind(gate):
    before = traces()
    with ImagePool(CONFIG, 2) as pool:
        futures = [pool.submit(PNG) for _ in range(4)]
        for future in futures:
            future.result(S)
        assert traces() != before
    assert traces() == before
    with ImagePool(CONFIG, 1) as pool:
        pool.submit(gate.path)
        gate.entered()
        gate.kill_inside(pool)
    gate.open()
    assert traces() == before
    ImagePool(CONFIG, 2).close()  # while they start
    assert traces() == before
    dropped = ImagePool(CONFIG, 1).submit(PNG)
    gc.collect()
    assert isinstance(dropped.exception(S), RuntimeError)
    until(lambda: traces() == before, "a dropped pool is gone")


@needs_proc
def test_the_block_of_a_huge_file_shrinks():
    huge = saved(PICTURE, "BMP") + bytes(40 << 20)
    with ImagePool(CONFIG, 1) as pool:
        same(pool.submit(huge).result(S), prepare(PNG, CONFIG))
        blocks = [line.split()[0] for line in traces()[0] if "memfd:jaxphoton" in line]
        assert len(blocks) == 2
        assert all(os.fstat(int(block)).st_size < 1 << 20 for block in blocks)


@needs_proc
def test_workers_have_no_jax(pool):
    pool.submit(PNG).result(S)
    for pid in pool.worker_pids:
        libraries = Path(f"/proc/{pid}/maps").read_text()
        assert "jaxlib" not in libraries
    assert "_imaging" in libraries


def test_prints_of_libraries_do_not_disturb(tmp_path, monkeypatch, capfd):
    # Python runs this file before the worker, and Pillow calls what it registers within it.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if '-m' in sys.orig_argv:\n"
        "    print('early noise', flush=True)\n"
        "    from PIL import Image\n"
        "    def accept(prefix):\n"
        "        print('late noise', flush=True)\n"
        "        os.write(1, b'raw noise')\n"
        "        assert os.read(0, 10) == b''\n"
        "        return False\n"
        "    Image.register_open('NOISE', None, accept)\n"
        "    Image.ID.insert(0, Image.ID.pop())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with ImagePool(CONFIG, 1) as pool:
        for _ in range(2):
            same(pool.submit(PNG).result(S), prepare(PNG, CONFIG))
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.count("late noise") == 2 and output.err.count("raw noise") == 2


def script(tmp_path: Path, text: str) -> list[str]:
    """A program of a user: no `if __name__ == "__main__"`."""
    path = tmp_path / "script.py"
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    imports = "from jaxphoton.config import VisionConfig\nfrom jaxphoton.image.pool import ImagePool\n"
    path.write_text(f"{head}{imports}print('started', flush=True)\n{text}")
    return [sys.executable, str(path)]


@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-", ""])
def test_an_unguarded_script_that_forgets_to_close(tmp_path, closed):
    (tmp_path / "a.png").write_bytes(PNG)
    # A module of this name in the folder of work must not become the worker's.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    command = script(
        tmp_path,
        "pool = ImagePool(VisionConfig(), 2)\n"
        "futures = [pool.submit('work/../a.png'), pool.submit(open('a.png', 'rb').read())]\n"
        f"print([future.result({S}).size for future in futures])\n",
    )
    (tmp_path / "work").mkdir()
    (tmp_path / "script.py").rename(tmp_path / "work" / "script.py")
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -W error work/script.py {closed}', command[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=S,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("started\n[(120, 90), (120, 90)]\n", "", 0)


@needs_proc
def test_workers_do_not_outlive_a_killed_parent(tmp_path, gate):
    text = f"pool = ImagePool(VisionConfig(), 1)\nf = pool.submit({str(gate.path)!r})\n"
    text += (
        "import time\nwhile not pool.worker_pids: time.sleep(0.01)\nprint(*pool.worker_pids, flush=True)\nf.result()"
    )
    with subprocess.Popen(script(tmp_path, text), stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout.readline() == "started\n"
            pid = int(parent.stdout.readline())
            gate.entered()  # it is stuck in a picture, and does not look at its stdin
            assert running(pid)
        finally:
            parent.kill()
    until(lambda: not running(pid), "the worker is gone")
