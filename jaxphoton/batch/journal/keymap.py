"""A dictionary from keys to small numbers that holds ten million of them."""

from __future__ import annotations

from array import array
from hashlib import blake2b

_START = 1024


def digest(text: str) -> int:
    """64 bits that stand for a text, the same on every machine; never 0. Texts from undecodable file names do too."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1


class KeyMap:
    """Key -> unsigned number; the keys themselves are not kept, only their `digest`.

    Open addressing in two flat arrays, at most two thirds full: 10 million keys take 151 MB with values of one byte
    and 268 MB with values of eight. Two keys of ten million share a digest with a probability of 3 in a million.

    Args:
      typecode: of the values, as in `array`: "B" for 0 to 255, "Q" for 64 bits.
    """

    def __init__(self, typecode: str = "Q"):
        self._digests = array("Q", bytes(8 * _START))
        self._values = array(typecode, bytes(array(typecode).itemsize * _START))
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def __contains__(self, key: str) -> bool:
        return self._digests[self._slot(digest(key))] != 0

    def get(self, key: str) -> int | None:
        """The value of `key`, None where it has none."""
        slot = self._slot(digest(key))
        return self._values[slot] if self._digests[slot] else None

    def __setitem__(self, key: str, value: int) -> None:
        if 3 * (self._used + 1) > 2 * len(self._digests):
            self._grow()
        number = digest(key)
        slot = self._slot(number)
        self._used += self._digests[slot] == 0
        self._digests[slot], self._values[slot] = number, value

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays."""
        return sum(part.itemsize * len(part) for part in (self._digests, self._values))

    def _slot(self, number: int) -> int:
        digests = self._digests
        mask = len(digests) - 1
        slot = number & mask
        while (found := digests[slot]) and found != number:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        digests, values = self._digests, self._values
        self._digests = array("Q", bytes(16 * len(digests)))
        self._values = array(values.typecode, bytes(2 * values.itemsize * len(values)))
        for number, value in zip(digests, values, strict=True):
            if number:
                slot = self._slot(number)
                self._digests[slot], self._values[slot] = number, value
