"""Pictures prepared in worker processes are as in this process, in bounded numbers."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from jaxphoton.image.decode import ImageError
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import prepare
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.pictures import MoondreamPictures
from tests.image.files import photo, png16, saved
from tests.image.pools import PICTURE, PICTURES, PNG, S, failure, needs_proc, same, traces


@pytest.fixture(scope="module")
def pool():
    with ImagePool(PICTURES, 2) as pool:
        yield pool


def files() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 8
    frames = [Image.fromarray(photo(30, 40, seed)) for seed in range(3)]
    clear = PICTURE.convert("RGBA")
    clear.putalpha(77)
    pillow_heif.from_pillow(PICTURE).save(heic := io.BytesIO(), exif=exif.tobytes())
    return {
        "png": PNG,
        "jpeg": saved(PICTURE, "JPEG", quality=80),
        "turned": saved(PICTURE, "JPEG", exif=exif),
        "cmyk": saved(PICTURE.convert("CMYK"), "JPEG"),
        "webp": saved(PICTURE, "WEBP"),
        "gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "bmp": saved(PICTURE, "BMP"),
        "tiff": saved(PICTURE, "TIFF"),
        "heic": heic.getvalue(),
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
        same(future.result(S), prepare(source, PICTURES))


def test_other_sources_are_done_before_submit_returns(pool):
    for source in (PICTURE, np.asarray(PICTURE), io.BytesIO(PNG)):
        future = pool.submit(source)
        assert future.done()
        same(future.result(), prepare(PNG, PICTURES))
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
            prepare(source, PICTURES)
        error = future.exception(S)
        assert type(error) is ImageError
        assert error.args == expected.value.args
        assert (error.source, error.reason, error.fault) == expected.value.args
    assert str(pool.submit(page, name="page 7").exception(S)).startswith("page 7: ")


def test_options_reach_the_workers():
    clear = PICTURE.convert("RGBA")
    clear.putalpha(77)
    options = {"max_pixels": 20_000, "background": (255, 0, 9), "allow_truncated": True, "resize": "fast"}
    with ImagePool(MoondreamPictures(VisionConfig()), 1, **options) as pool:
        for data in (saved(clear, "PNG"), saved(PICTURE, "JPEG")[:-300]):
            same(pool.submit(data).result(S), prepare(data, MoondreamPictures(VisionConfig()), **options))
        assert failure(pool.submit(saved(PICTURE.resize((200, 200)), "PNG"))).reason == "too-large"
    with pytest.raises(ValueError, match="background"):
        ImagePool(PICTURES, 1, background=(1, 2, 300))
    with pytest.raises(ValueError, match="resize must be one of exact, fast"):
        ImagePool(PICTURES, 1, resize="quick")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        ImagePool(PICTURES, 0)


def test_relative_paths_are_those_of_the_moment(pool, tmp_path, monkeypatch):
    pool.submit(PNG).result(S)
    (tmp_path / "mine.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    future = pool.submit("mine.png")
    missing = pool.submit("other.png")
    monkeypatch.chdir("/")
    same(future.result(S), prepare(PNG, PICTURES))
    assert missing.exception(S).args == ("other.png", "not-found", "no such file")


def test_formats_that_only_this_process_knows(pool, monkeypatch):
    for table in ("OPEN", "MIME"):
        monkeypatch.setattr(Image, table, dict(getattr(Image, table)))
    monkeypatch.setattr(Image, "ID", list(Image.ID))

    def opened(file, name) -> Any:
        return PICTURE.copy()

    Image.register_open("OURS", opened, lambda prefix: prefix.startswith(b"our format"))
    same(pool.submit(b"our format").result(S), prepare(PICTURE, PICTURES))


def test_submit_waits_at_the_bound(gate):
    with ImagePool(PICTURES, 1, slots=1, bound=2) as pool:
        first, second, third = pool.submit(gate.path), pool.submit(PNG), []
        gate.entered()
        thread = threading.Thread(target=lambda: third.append(pool.submit(PNG)))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not first.done() and not second.done()
        gate.open()
        assert failure(first).reason == "empty"
        thread.join(S)
        same(third[0].result(S), second.result(S))


def test_waiting_pictures_can_be_cancelled_and_free_their_place(gate):
    with ImagePool(PICTURES, 1, slots=1, bound=2) as pool:
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


def test_one_stuck_worker_does_not_stop_the_other(gate):
    with ImagePool(PICTURES, 2, slots=1) as pool:
        stuck = pool.submit(gate.path)
        gate.entered()
        for _ in range(5):
            pool.submit(PNG).result(S)
        gate.open(PNG)
        same(stuck.result(S), prepare(PNG, PICTURES))


@needs_proc
def test_the_block_of_a_huge_file_shrinks():
    huge = saved(PICTURE, "BMP") + bytes(40 << 20)
    with ImagePool(PICTURES, 1) as pool:
        same(pool.submit(huge).result(S), prepare(PNG, PICTURES))
        blocks = [line.split()[0] for line in traces()[0] if "memfd:jaxphoton" in line]
        assert len(blocks) >= 2
        assert all(os.fstat(int(block)).st_size < 1 << 20 for block in blocks)


@needs_proc
def test_workers_have_no_jax(pool):
    pool.submit(PNG).result(S)
    for pid in pool.worker_pids:
        libraries = Path(f"/proc/{pid}/maps").read_text()
        assert "jaxlib" not in libraries
    assert "_imaging" in libraries


def test_workers_give_way_to_the_process_that_launches(pool):
    pool.submit(PNG).result(S)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert all(os.getpriority(os.PRIO_PROCESS, pid) > own for pid in pool.worker_pids)


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
    with ImagePool(PICTURES, 1) as pool:
        for _ in range(2):
            same(pool.submit(PNG).result(S), prepare(PNG, PICTURES))
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.count("late noise") == 2 and output.err.count("raw noise") == 2
