"""Pages of the key/value pool: who holds how many, exactly."""

from __future__ import annotations

from collections.abc import Iterable

TRASH_PAGE = 0  # Padding and finished rows write here; nobody reads it.


class PageAllocator:
    """Hands out page numbers 1 .. pages - 1.

    Freed pages are reused last in, first out: the pool's cold end stays untouched when the load is light.
    """

    def __init__(self, pages: int):
        if pages < 2:
            raise ValueError(f"a pool needs at least 2 pages (page {TRASH_PAGE} belongs to nobody), got {pages}")
        self.pages = pages
        self._free = list(range(pages - 1, TRASH_PAGE, -1))
        self._held: set[int] = set()

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def usable(self) -> int:
        """All pages that can be held at once."""
        return self.pages - 1

    def allocate(self, count: int) -> list[int]:
        """Takes `count` pages.

        Raises:
          ValueError: fewer are free; nothing is taken then.
        """
        if not 0 <= count <= len(self._free):
            raise ValueError(f"{count} pages asked for, {len(self._free)} free")
        taken = [self._free.pop() for _ in range(count)]
        self._held.update(taken)
        return taken

    def release(self, pages: Iterable[int]) -> None:
        """Gives pages back.

        Raises:
          ValueError: a page that is not held.
        """
        for page in pages:
            if page not in self._held:
                raise ValueError(f"page {page} is not held")
            self._held.remove(page)
            self._free.append(page)
