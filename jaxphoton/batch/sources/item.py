"""One image of a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxphoton.batch.errors import EntryError, EntryReason

# What a folder is searched for. HEIC without its extra is a failure with a reason, not a file passed over in silence.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)


@dataclass(frozen=True, slots=True)
class Item:
    """An image that has not been read yet.

    Attributes:
      key: its name in the journal: stable from run to run, and different for every item of a source.
      path: where it is, for people and for exports: an absolute path, an address, or `<container>#<entry>`.
      load: returns the bytes of the file, or raises; `read` is what to call.
      local: `path` is a file that any process on this machine can open.
      columns: what the source's options asked for, where the entry has it: prompts, labels, an old caption.
    """

    key: str
    path: str
    load: Callable[[], bytes]
    local: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> bytes:
        """The bytes of the image file. May be called from any thread, and again.

        Raises:
          ImageError: there is no such image; `reason` is one of `ENTRY_REASONS`.
        """
        try:
            data = self.load()
        except EntryError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            raise EntryError(self.key, "not-found", "no such file") from None
        except Exception as error:  # storage libraries pass on whatever their HTTP client throws
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EntryError(self.key, "unreadable", f"cannot be read: {text}") from error
        if not data:
            raise EntryError(self.key, "empty", "the file is empty")
        return data

    def image(self) -> str | bytes:
        """What `decode` and `ImagePool.submit` take: the path of a local file, else the bytes; raises as `read`."""
        return self.path if self.local else self.read()


def broken(key: str, path: str, reason: EntryReason, fault: str) -> Item:
    """An entry that gives no image: reading it raises."""

    def fail() -> bytes:
        raise EntryError(key, reason, fault)

    return Item(key, path, fail)
