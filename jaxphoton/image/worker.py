"""One image worker: `python -m jaxphoton.image.worker`, started and fed by `jaxphoton.image.pool`.

Told by it (see `jaxphoton.processes`): first the settings, with the "room" for pictures, then one message a picture,
answered in order. Pixels and the bytes of files pass through the `blocks` that it has inherited.

Only the standard library is imported before the protocol has left stdout; jax never is.
"""

from __future__ import annotations

import os
import signal
from queue import SimpleQueue

from jaxphoton.image.blocks import take_bytes, write_block
from jaxphoton.processes.parent import Parent
from jaxphoton.processes.pipe import Message

# One line, so that whatever a site's start-up files print before it can be told apart.
READY = b"jaxphoton image worker ready\n"
NICE = 10  # a processor that both want goes to the parent, which launches steps, or computes them


def main() -> None:
    """Answers until the parent is gone, then leaves at once."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICE)
    # Ctrl-C goes to the whole group of processes; the parent decides what it means for its images.
    parent = Parent(signal.SIGINT)
    settings = parent.receive()
    answer = _answerer(settings)
    tasks: SimpleQueue[Message] = SimpleQueue()
    parent.listen(tasks.put)
    parent.greet(READY)
    parent.send({"room": settings["room"]})
    while True:
        task = tasks.get()
        parent.send(answer(task) | {"number": task["number"]})


def _answerer(settings: Message):
    # Late: these imports may print, and the streams are taken first.
    from PIL import Image

    from jaxphoton.image.crops import told_again
    from jaxphoton.image.errors import ImageError
    from jaxphoton.image.prepare import prepare

    Image.init()  # loads Pillow's formats before the first picture waits for them
    pictures = told_again(settings["pictures"])
    rules = settings["rules"] | {"background": tuple(settings["rules"]["background"])}

    def answer(task: Message) -> Message:
        try:
            source = task["path"] if task["path"] is not None else take_bytes(task["block"], task["length"])
            prepared = prepare(source, pictures, name=task["name"], **rules)
            write_block(task["block"], prepared.crops.pixels.data.cast("B"))
        except ImageError as error:
            return {"image_error": error.args}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        size, notes, tiling = prepared.size, prepared.notes, prepared.crops.tiling
        return {
            "tiling": tiling,
            "shape": prepared.crops.pixels.shape,
            "digest": prepared.digest.hex(),
            "size": size,
            "notes": notes,
            "began": prepared.began,  # of a clock that all processes of a machine share
            "seconds": prepared.seconds,
        }

    return answer


if __name__ == "__main__":
    main()
