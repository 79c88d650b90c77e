"""One image worker: `python -m jaxphoton.image.worker`, started and fed by `jaxphoton.image.pool`.

Frames on stdin (JSON after its length): first the settings, then one a picture. Frames on stdout: one answer a
picture, in order. Pixels and the bytes of files pass through blocks, unlinked files in memory whose descriptors
were inherited: they vanish with the last process that has them open, however that ends.

Only the standard library is imported before the protocol has left stdout; jax never is.
"""

from __future__ import annotations

import os
import signal
from queue import SimpleQueue

from jaxphoton.processes.frames import Message
from jaxphoton.processes.parent import Parent

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
    """Answers until the parent is gone, then leaves at once."""
    # Ctrl-C goes to the whole group of processes; the parent decides what it means for its images.
    parent = Parent(signal.SIGINT)
    answer = _answerer(parent.receive())
    tasks: SimpleQueue[Message] = SimpleQueue()
    parent.listen(tasks.put)
    parent.greet(READY)
    while True:
        parent.send(answer(tasks.get()))


def _answerer(settings: Message):
    # Late: these imports may print, and the streams are taken first.
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
