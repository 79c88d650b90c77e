"""What a family of models is: all that the engine, the requests and the oracle know of one. No jax at import.

A `Family` is bound to the settings of one model and lives on the host; its `Network` holds the pure functions of device
programs. A prompt is a prefix, which ends with the image block and whose keys and values questions share, and the ids
behind it, among which further image blocks may stand. Sizes in docstrings, those of `models.network` too: B rows,
T tokens, I images, N image embeddings, P positions of a prefix, D width, V vocabulary, F and E the `fed` and `columns`
of a readout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxphoton.constraints.grammar import Grammar
from jaxphoton.image.crops import Crops, Pictures
from jaxphoton.models.network import Attend as Attend
from jaxphoton.models.network import AttendJoined as AttendJoined
from jaxphoton.models.network import Kernels as Kernels
from jaxphoton.models.network import Network
from jaxphoton.models.tensors import Tensors
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Prompt as Prompt

if TYPE_CHECKING:
    import jax

    from jaxphoton.requests.skills import FamilySkills

IMAGE = -1  # in the ids of a prefix: an image embedding stands here

# draw([(logits float32 [B, n], stream, needed bool [B]), ...]) -> (chosen int32 [B], log-probability float32 [B]) of
# each; streams of random words from 1 on are the readout's, at most 7 of them.
Draw = Callable[[Sequence[tuple[Any, int, Any]]], Sequence[tuple[Any, Any]]]
# guard(index) surrounds what is done with picture number `index`: an exception in it is that picture's fault.
Guard = Callable[[int], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What a position keeps in every layer: keys and values [n_kv_heads, head_dim]."""

    n_layers: int
    n_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """A prompt as the network takes it.

    Attributes:
      prefix: int32 [P], all up to the end of the image block, IMAGE where an embedding stands; empty without an image.
      ids: int32 [T], what follows; at least one, and the last is no image.
      fed: int32 [T, F], what these carry besides their ids; zeros for nothing.
      blocks: (start, stop) in `ids` of each further image block, ascending; IMAGE stands there as in a prefix. None is
        longer than the longest prefix, and one of a family with `fixed_prefix` is the end of its prefix.
    """

    prefix: np.ndarray
    ids: np.ndarray
    fed: np.ndarray
    blocks: tuple[tuple[int, int], ...] = ()


class Readout(Protocol):
    """What a token may carry besides its id, such as a coordinate.

    Attributes:
      columns: E, numbers that come back for each token; the first is -1 where it carries nothing.
      fed: F, numbers that are kept for the step that feeds it; zeros for the id alone.
    """

    columns: int
    fed: int

    def taken(self, token: int, columns: Sequence[int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """(what was chosen, the values it stands for) of a token that carries something."""
        ...

    def feed(self, values: tuple[float, ...]) -> Sequence[int]:
        """The F numbers with which values are fed."""
        ...

    def read(
        self, params: Any, hidden: jax.Array, token: jax.Array, reads: jax.Array, draw: Draw
    ) -> tuple[jax.Array, Sequence[jax.Array], jax.Array]:
        """On the device: what hidden states [B, D] say beside the tokens int32 [B], in the rows with `reads` bool [B].

        Returns (fed int32 [B, F], E columns int32 [B], log-probability of the choices float32 [B], 0 for none).
        """
        ...


@dataclass(frozen=True, slots=True)
class TokenizerPlace:
    """Where the tokenizer of a model is, other than beside its weights.

    Attributes:
      repository: of Hugging Face, with the tokenizer of models that have none of their own; None where every model has.
      instead: beginnings of the ids of repositories whose own tokenizer is not the model's.
      end_of_text: the id of `<|endoftext|>` in the right tokenizer; None where that tells nothing.
    """

    repository: str | None = None
    instead: tuple[str, ...] = ()
    end_of_text: int | None = None


class Family(Protocol):
    """One model's family, compared by identity.

    Attributes:
      name: of the family.
      config: the settings it is bound to.
      vocab_size, max_context, width: V, positions, D.
      heads: query heads of a layer.
      cache: what a position keeps.
      causal: whether the positions of a prefix see each other as text does; else both ways.
      prefix_lengths: lengths to which prefixes are padded, ascending; the last is the longest that there is.
      fixed_prefix: every prefix is the same ids, of the one length: its ids need not go up.
      image_tokens: N, the most embeddings of one image.
      max_crops: of one picture.
      pictures: how pictures are prepared.
      grammars: by name; states say which ids stop, and where the readout reads.
      stop_ids: that end a plain text.
      answer_id: opens the answer behind the reasoning; None for a family that does not reason.
      reasons: whether it reasons where nobody says.
      defaults: how texts are generated where nobody says; boxes, points and outlines have `REGION_DEFAULTS`.
      readout: None if tokens are ids alone.
      tokenizer: where its tokenizer is.
      network: the device side; importing it imports jax.
      tensors: what checkpoints hold; importing it imports jax.
    """

    name: str
    config: Any
    vocab_size: int
    max_context: int
    width: int
    heads: int
    cache: CacheSpec
    causal: bool
    prefix_lengths: tuple[int, ...]
    fixed_prefix: bool
    image_tokens: int
    max_crops: int
    pictures: Pictures
    grammars: Mapping[str, Grammar]
    stop_ids: frozenset[int]
    answer_id: int | None
    reasons: bool
    defaults: Settings
    readout: Readout | None
    tokenizer: TokenizerPlace

    @property
    def network(self) -> Network: ...

    def skills(self, encode: Callable[[str], list[int]] = ..., clamp_boxes: bool = False) -> FamilySkills:
        """What the model can be asked.

        Args:
          encode: text to ids, without special tokens; without one, asks can only be checked.
          clamp_boxes: cut boxes at the border of the picture.
        """
        ...

    @property
    def tensors(self) -> Tensors: ...

    def with_coordinates(self, divisor: str) -> Family:
        """The same, with coordinates that are bin / bins ("bins") or bin / (bins - 1) ("bins-1").

        Raises:
          ValueError: it has none, and they shall be others than "bins"; or there is no such way.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """The settings in the form of a `config.json`."""
        ...

    def segments(self, prompt: Prompt, image: Crops | None, further: Sequence[Crops] = ()) -> Segments:
        """A prompt with its image, or without one, and with a further picture for each of `Prompt.pictures`.

        Raises:
          ValueError: the prompt cannot stand with them.
        """
        ...

    def pack(self, pictures: Sequence[Crops], images: int, crops: int, guard: Guard) -> tuple[np.ndarray, ...]:
        """The arrays of one launch of `Network.encode`, padded to so many images and crops.

        Raises (inside `guard`):
          ValueError: a picture's crops are not those of this model.
        """
        ...

    def vision_buckets(self, images: int) -> tuple[tuple[int, int], ...]:
        """(images, crops) that encoders are compiled for where nobody says; at most `images` together."""
        ...

    def layer_scratch(self, tokens: int, item: int, ways: int = 1) -> int:
        """Bytes that the linear parts of a layer need for so many tokens, of numbers of `item` bytes, on each of the
        devices that share it."""
        ...

    def encode_scratch(self, images: int, crops: int, item: int, ways: int = 1) -> int:
        """Bytes that the encoder needs there."""
        ...
