"""One image worker: `python -m jaxphoton.image.worker`, started and fed by `jaxphoton.image.pool`.

Frames on stdin (JSON after its length): first the settings, then one a picture. Frames on stdout: one answer a
picture, in order. Pixels and the bytes of files pass through blocks, unlinked files in memory whose descriptors
were inherited: they vanish with the last process that has them open, however that ends.

Only the standard library is imported before the protocol has left stdout; jax never is.
"""

from __future__ import annotations

import os
import signal
import threading
from queue import SimpleQueue
from typing import IO

from jaxphoton.processes.frames import Message, read_frame, write_frame
from jaxphoton.processes.serve import die_with_parent, take_streams

# One line, so that whatever a site's start-up files print before it can be told apart.
READY = b"jaxphoton image worker ready\n"
# A block that held the bytes of a larger file is emptied; this holds the crops of every released model.
_KEPT_BYTES = 16 << 20


def read_block(block: int, into: memoryview) -> None:
    """Fills `into` (contiguous bytes) from the start of the block."""
    done = 0
    while done < len(into):
        count = os.preadv(block, [into[done:]], done)
        if not count:
            raise EOFError(f"a block of {done} bytes, {len(into)} expected")
        done += count


def write_block(block: int, data: memoryview) -> None:
    """Writes `data` (contiguous bytes) to the start of the block."""
    done = 0
    while done < len(data):
        done += os.pwrite(block, data[done:], done)


def main() -> None:
    """Answers until stdin ends, then leaves at once."""
    # Ctrl-C goes to the whole group of processes; the parent decides what it means for its images.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks, replies = take_streams()
    die_with_parent()
    try:
        settings = read_frame(tasks)
    except EOFError:
        return
    answer = _answerer(settings)
    queue: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_listen, args=(tasks, queue), daemon=True).start()
    try:
        replies.write(READY)
        replies.flush()
        while True:
            write_frame(replies, answer(queue.get()))
    except BrokenPipeError:
        os._exit(0)


def _listen(tasks: IO[bytes], queue: SimpleQueue[Message]) -> None:
    """A thread of its own, so that the end of the parent ends a worker that is stuck in a picture too."""
    try:
        while True:
            queue.put(read_frame(tasks))
    except EOFError:
        os._exit(0)


def _answerer(settings: Message):
    # Late: these imports may print, and take_streams comes first.
    from PIL import Image

    from jaxphoton.image.errors import ImageError
    from jaxphoton.image.prepare import prepare
    from jaxphoton.models.moondream.config import VisionConfig

    Image.init()  # loads Pillow's formats before the first picture waits for them
    config = VisionConfig(**settings["vision"])
    rules = settings["rules"] | {"background": tuple(settings["rules"]["background"])}

    def answer(task: Message) -> Message:
        try:
            source = task["path"] if task["path"] is not None else _take_bytes(task["block"], task["length"])
            prepared = prepare(source, config, name=task["name"], **rules)
            write_block(task["block"], prepared.crops.pixels.data.cast("B"))
        except ImageError as error:
            return {"image_error": error.args}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        size, notes, tiling = prepared.size, prepared.notes, prepared.crops.tiling
        return {
            "tiling": tiling,
            "digest": prepared.digest.hex(),
            "size": size,
            "notes": notes,
            "began": prepared.began,  # of a clock that all processes of a machine share
            "seconds": prepared.seconds,
        }

    return answer


def _take_bytes(block: int, length: int) -> bytearray:
    data = bytearray(length)
    read_block(block, memoryview(data))
    if length > _KEPT_BYTES:
        os.ftruncate(block, 0)
    return data


if __name__ == "__main__":
    main()
