"""Text <-> token ids, through a `tokenizer.json` or any other tokenizer that `transformers` can load."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxphoton.files import MAX_TOKENIZER_BYTES, FileError, open_regular, read_bytes, reason
from jaxphoton.messages import escaped, first_line

# The Moondream vocabularies keep these ids for BOS, skill names, coordinates and grounding.
RESERVED_IDS = range(10)


PANIC = "PanicException"  # of the Rust side; it is no Exception and has no module to import it from
# How byte-level vocabularies write bytes: those that are no letters of Latin-1 as the letters from U+0100 on.
_LETTERS = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(0x100)).difference(_LETTERS))
BYTES = {chr(byte): byte for byte in _LETTERS} | {chr(0x100 + place): byte for place, byte in enumerate(_OTHERS)}
PROBE = "A photo of 2 cats, un café: 猫 🙂.\n"


class TokenizerError(ValueError):
    """A tokenizer that cannot be loaded."""


class Tokenizer:
    """Encodes user text and decodes generated ids; neither direction lets a special token through.

    Safe to share between threads.

    Attributes:
      vocab_size: how many tokens the tokenizer knows, added ones included.
      last_id: the largest of their ids.
      has_text: whether any of them is text.
    """

    def __init__(self, backend: Any):
        """Wraps a `tokenizers.Tokenizer`, which is changed: it encodes special tokens as plain text from here on."""
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        vocabulary = backend.get_vocab(with_added_tokens=True)
        special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        # Some files list the reserved tokens as ordinary ones; in older vocabularies these ids are plain letters.
        special |= {token for token, index in vocabulary.items() if index in RESERVED_IDS and re.match("<.+>$", token)}
        self._special_ids = frozenset(vocabulary[token] for token in special)
        self._text_ids = frozenset(vocabulary.values()) - self._special_ids
        names = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
        self._special_text = re.compile(names) if names else None
        self.has_text = bool(self._text_ids)
        self._longest = max(map(len, vocabulary), default=0)  # characters of an id, or its bytes, which are no fewer
        self.last_id: int = max(vocabulary.values(), default=-1)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """Ids of `text` without BOS or EOS. Text that looks like a special token ("<|endoftext|>") stays text.

        Args:
          most: ids that there is room for. More may come back, but what is certain to have more is refused.

        Raises:
          ValueError: the text is too long for so few ids.
        """
        # Encoding takes microseconds a character, in which no other thread of the process runs.
        if most is not None and len(text) > most * self._longest:
            raise ValueError(f"a text of {len(text):,} characters leaves no room for an answer")
        # A surrogate without its pair (from a file name, say) has no UTF-8 form, which the Rust side needs.
        text = text.encode("utf-8", "replace").decode("utf-8")
        ids = self._backend.encode(text, add_special_tokens=False).ids
        if self._special_text is None or self._special_ids.isdisjoint(ids):
            return ids
        # Only where a file lists a special token as an ordinary one: no part of a broken name matches it.
        cuts = [0, *(match.start() + 1 for match in self._special_text.finditer(text)), len(text)]
        pieces = (text[start:stop] for start, stop in zip(cuts, cuts[1:], strict=False))
        return [i for piece in pieces for i in self._backend.encode(piece, add_special_tokens=False).ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. Special and unknown ids vanish; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode([int(i) for i in ids if i in self._text_ids], skip_special_tokens=True)

    def to_json(self) -> str:
        """The tokenizer in the form of a `tokenizer.json`."""
        return self._backend.to_str()

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of one id, of which several may make up a character; none of a special or unknown id."""
        if token_id not in self._text_ids:
            return b""
        piece = self._backend.id_to_token(token_id)
        if type(self._backend.decoder).__name__ == "ByteLevel" and all(letter in BYTES for letter in piece):
            return bytes(BYTES[letter] for letter in piece)
        return self.decode([token_id]).encode()

    def is_text(self, token_id: int) -> bool:
        """Whether an id takes part in decoded text: it is known and not special."""
        return token_id in self._text_ids


def load_tokenizer(path: str | os.PathLike, vocab_size: int | None = None) -> Tokenizer:
    """Loads a tokenizer.

    Args:
      path: a `tokenizer.json`, a folder that holds one, or whatever `AutoTokenizer.from_pretrained` takes (a folder
        in another form, a name on the hub). Code that comes with a tokenizer is never run.
      vocab_size: of the model that it is for: the number of its embeddings.

    Raises:
      TokenizerError: there is nothing, it is not a tokenizer, or it has tokens that the model has not.
    """
    source = Path(path)
    file = source / "tokenizer.json" if os.path.lexists(source / "tokenizer.json") else source
    plain = file.suffix == ".json" or (os.path.lexists(file) and not os.path.isdir(file))
    try:
        tokenizer = Tokenizer(_from_file(file) if plain else _from_transformers(source))
        # What a file says wrongly may show at the first text only.
        tokenizer.decode(tokenizer.encode(PROBE))
    except TokenizerError as error:
        raise TokenizerError(f"{escaped(path)}: {error}") from None
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        raise TokenizerError(f"{escaped(path)}: not a tokenizer that can be loaded: {first_line(error)}") from error
    _check_ids(path, tokenizer, vocab_size)
    return tokenizer


def _from_file(file: Path) -> Any:
    try:
        data = read_bytes(file, MAX_TOKENIZER_BYTES)
    except FileError as error:
        raise TokenizerError(str(error)) from None
    from tokenizers import Tokenizer as Backend

    return Backend.from_buffer(data.removeprefix(b"\xef\xbb\xbf"))


def _from_transformers(source: Path) -> Any:
    """From a folder in another form, of which transformers reads what it finds, or by a name on the hub."""
    for file in sorted(source.iterdir()) if os.path.isdir(source) else ():
        if file.suffix in (".json", ".txt", ".model", ".jinja"):
            try:
                with open_regular(file) as opened:
                    size = os.fstat(opened.fileno()).st_size
            except OSError as error:
                raise TokenizerError(f"{escaped(file.name)}: {reason(error)}") from None
            if size > MAX_TOKENIZER_BYTES:
                raise TokenizerError(f"{escaped(file.name)}: {size:,} bytes are too many for a tokenizer")
    with _quiet_transformers():
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise TokenizerError(f"{type(loaded).__name__} has no fast form (tokenizer.json)")
    return backend


def _check_ids(path: str | os.PathLike, tokenizer: Tokenizer, vocab_size: int | None) -> None:
    if not tokenizer.has_text:
        raise TokenizerError(f"{escaped(path)}: a tokenizer without tokens of text")
    if vocab_size is not None and tokenizer.last_id >= vocab_size:
        raise TokenizerError(
            f"{escaped(path)}: its token {tokenizer.last_id} is beyond the model's vocabulary of {vocab_size}: the "
            "tokenizer is another model's"
        )


@contextlib.contextmanager
def _quiet_transformers():
    """No advice about PyTorch on import, and errors only while loading; the verbosity is put back afterwards."""
    advice = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    first = "transformers" not in sys.modules and advice not in os.environ
    if first:
        os.environ[advice] = "1"
    try:
        from transformers.utils import logging
    finally:
        if first:
            del os.environ[advice]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
