"""One image of a source."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxphoton.batch.errors import EntryError, EntryReason
from jaxphoton.batch.sources.retry import TimedOut

# What a folder is searched for: all that Pillow decodes (a test compares them), and what its HEIF plugin does. A fixed
# list, so that the images of a folder do not change with a release or a plugin. HEIC without its extra is a failure
# with a reason, not a file passed over.
IMAGE_SUFFIXES = frozenset(
    ".apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .heic .heics .heif "
    ".heifs .hif .icb .icns .ico .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx "
    ".pfm .pgm .png .pnm .ppm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm".split()
)


@dataclass(frozen=True, slots=True)
class Item:
    """An image that has not been read yet.

    Attributes:
      key: its name in the journal: stable from run to run, and different for every item of a source.
      path: where it is, for people and for exports: an absolute path, an address, or `<container>#<entry>`.
      load: returns the bytes of the file, or raises; `read` is what to call.
      local: `path` is a file that any process on this machine can open.
      listed: somebody has named this file, and nobody has looked yet whether it is one.
      columns: what the source's options asked for, where the entry has it: prompts, labels, an old caption.
      notes: what a person should know about how the image was chosen, for the warnings of its record.
      members: of a sample of a tar, its extensions.
    """

    key: str
    path: str
    load: Callable[[], bytes]
    local: bool = False
    listed: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The bytes of the image file. May be called from any thread, and again.

        Raises:
          ImageError: there is no such image; `reason` is one of `ENTRY_REASONS`.
        """
        try:
            data = self.load()
        except EntryError:
            raise
        except TimedOut as error:
            raise EntryError(self.key, "timeout", f"cannot be read: {error}") from error
        except (FileNotFoundError, NotADirectoryError):
            raise EntryError(self.key, "not-found", "no such file") from None
        except Exception as error:  # storage libraries pass on whatever their HTTP client throws
            # What the system says has the path in it, which everybody knows; what a library says may name the host.
            plain = error.strerror if isinstance(error, OSError) and type(error).__module__ == "builtins" else None
            text = plain or str(error) or type(error).__name__
            raise EntryError(self.key, "unreadable", f"cannot be read: {text}") from error
        if not data:
            raise EntryError(self.key, "empty", "the file is empty")
        return data

    def image(self) -> str | bytes:
        """What `decode` and `ImagePool.submit` take: the path of a local file, else the bytes; raises as `read`."""
        if self.listed and _is_special(self.path):
            raise EntryError(self.key, "unreadable", "cannot be read: not a regular file but a pipe or a device")
        return self.path if self.local else self.read()


def broken(key: str, path: str, reason: EntryReason, fault: str) -> Item:
    """An entry that gives no image: reading it raises."""

    def fail() -> bytes:
        raise EntryError(key, reason, fault)

    return Item(key, path, fail)


def _is_special(path: str) -> bool:
    """Whether `path` is there and is a pipe or a device, which a decoder would wait for or read without end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
