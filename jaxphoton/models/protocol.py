"""What a family of models is: all that the engine, the requests and the oracle know of one. No jax at import.

A `Family` is bound to the settings of one model and lives on the host; its `Network` holds the pure functions of device
programs. A prompt is a prefix, which ends with the image block and whose keys and values questions share, and the ids
behind it, among which further image blocks may stand. Sizes in docstrings: B rows, T tokens, I images, N image
embeddings, P positions of a prefix, D width, V vocabulary, F and E the `fed` and `columns` of a readout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxphoton.constraints.grammar import Grammar
from jaxphoton.image.crops import Crops, Pictures
from jaxphoton.models.naming import Moved, Placement, Source, Use
from jaxphoton.requests.tokens import Prompt as Prompt

if TYPE_CHECKING:
    import jax
    from jax.typing import DTypeLike

    from jaxphoton.models.adapters import Adapter
    from jaxphoton.requests.skills import FamilySkills
    from kernels_pallas.dispatch import Target

IMAGE = -1  # in the ids of a prefix: an image embedding stands here

# attend(layer, q [B, T, heads, H], k, v [B, T, K, H], cache) -> (output [B, T, heads, H], cache): the seam between a
# network and whatever holds the keys and values.
Attend = Callable[[int, Any, Any, Any, Any], tuple[Any, Any]]
# attend_joined(layer, u [B, Q + F], cos, sin float32 [B, R / 2], factors, cache) -> (output [B, heads H], cache): the
# same for one position a row, from the whole input product of a layer, whose first Q columns are q, k and v before they
# are rotated and q and v multiplied by their factors: (parts float32 [S, B, 2 heads], terms float32 [L, B, heads]) of
# `kernels_pallas.step_attention`, or None.
AttendJoined = Callable[[int, Any, Any, Any, Any, Any], tuple[Any, Any]]
# draw(logits float32 [B, n], stream, needed bool [B]) -> (chosen int32 [B], log-probability float32 [B]); streams of
# random words from 1 on are the readout's, at most 7 of them.
Draw = Callable[[Any, int, Any], tuple[Any, Any]]
# guard(index) surrounds what is done with picture number `index`: an exception in it is that picture's fault.
Guard = Callable[[int], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What a position keeps in every layer: keys and values [n_kv_heads, head_dim]."""

    n_layers: int
    n_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Kernels:
    """How a program's attention and sampling are computed.

    Attributes:
      backend: as in `EngineConfig.kernels`; "plain": no operation of kernels_pallas at all, for the oracle.
      target: the device the program is compiled for; None for jax's default device.
      step: of a decode step, the parts of a dense layer that kernels compute (of `jaxphoton.config.STEP_PARTS`; XLA
        computes the others). Empty in programs of more positions than one a row.
    """

    backend: str = "auto"
    target: Target | None = None
    step: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        return {"backend": self.backend, "target": self.target}


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


class Tensors(Protocol):
    """What the checkpoints of a model hold, in the words of `jaxphoton.models.naming`.

    Attributes:
      adapters: what files of adapters hold.
    """

    @property
    def adapters(self) -> AdapterNames: ...

    def sources(self, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
        """Canonical name -> its source, and the names that are not known; what may be ignored is in neither.

        Raises:
          WeightsError: these are not the tensors of such a model, or two of them are the same one.
        """
        ...

    def fit(self, sources: Mapping[str, Source]) -> tuple[Family, Any, Set[str]]:
        """What the tensors decide: the family as they have it, the form of `Network.abstract`, names to leave out."""
        ...

    def uses(self) -> Mapping[str, Use]:
        """The matrices that may be stored in few bits, by their path, and what they are for."""
        ...

    def placements(self, form: Any) -> tuple[Placement, ...]:
        """Where every tensor goes; together they fill every leaf of `Network.abstract` exactly."""
        ...

    def stored_form(self, leaves: Iterable[str]) -> Any:
        """The form of parameters with leaves of these paths (`jaxphoton.layers.spec.by_path`)."""
        ...

    def moved(self, leaves: Set[str]) -> tuple[Moved, ...]:
        """What has other names today of a converted checkpoint with leaves of these paths; what is moved to a leaf
        fills it."""
        ...


class AdapterNames(Protocol):
    """What files of adapters call the modules of a model.

    Attributes:
      shapes: canonical name of each module that can have a pair -> [..., rows, columns] of what the pair stands for;
        leading axes are experts.
    """

    shapes: Mapping[str, tuple[int, ...]]

    def module(self, path: str, /) -> str:
        """The canonical name of the module at a path that a checkpoint of the model would have."""
        ...

    def pair(self, tensor: str) -> tuple[str, str] | None:
        """The canonical module and "a" or "b", of a tensor in a form of adapters that is the family's own."""
        ...


class Network(Protocol):
    """The device side: pure functions. `params` is the whole tree where nothing else is said."""

    def abstract(self, dtype: DTypeLike, form: Any = None) -> Any:
        """The tree of parameters as jax.ShapeDtypeStruct, with plain matrices; its first level are the parts that
        memory plans name.

        `form` is what a checkpoint decides beside the settings (`Tensors`), None for the published form.
        """
        ...

    def encoder(self, params: Any) -> Any:
        """The leaves that `encode` takes."""
        ...

    def decoder(self, params: Any) -> Any:
        """The leaves that all other functions take, in a tree that stands for `params` there."""
        ...

    def dtype(self, params: Any) -> Any:
        """Of activations."""
        ...

    def kv_scale(self, params: Any) -> Any:
        """float32 [L, 2], factors of float8 keys and values; None where the checkpoint has none."""
        ...

    def adapters(self, dtype: DTypeLike, slots: int, rank: int) -> Any:
        """Room for so many adapters of up to that rank: a tree for `jaxphoton.layers.adapters.put` with
        jax.ShapeDtypeStruct leaves."""
        ...

    def adapter_rank(self, adapter: Adapter) -> int:
        """The smallest rank of room that an adapter needs."""
        ...

    def adapter_slot(self, adapter: Adapter, dtype: DTypeLike, rank: int) -> Any:
        """`adapters` of one slot, with an adapter in it, as NumPy arrays.

        Raises:
          WeightsError: pairs of the adapter that do not fit the model or the rank, by name.
        """
        ...

    def with_adapters(self, params: Any, pool: Any, slots: jax.Array) -> Any:
        """The tree for `forward`, where each row of the batch has the adapter of its slot, int32 [B]; NO_SLOT of
        `jaxphoton.layers.adapters` for none."""
        ...

    def encode(self, encoder: Any, *packed: jax.Array, images: int, kernels: Kernels) -> jax.Array:
        """What `Family.pack` made of so many images -> their embeddings [I, N, D]."""
        ...

    def embed_prefix(self, params: Any, ids: jax.Array | None, embeddings: jax.Array) -> jax.Array:
        """Input embeddings [I, P, D] of prefixes, or of further image blocks, with ids int32 [I, P] (None for a family
        with `fixed_prefix`)."""
        ...

    def embed(self, params: Any, ids: jax.Array, fed: jax.Array) -> jax.Array:
        """Input embeddings [B, T, D] of ids int32 [B, T] that carry fed int32 [B, T, F]."""
        ...

    def forward(
        self,
        params: Any,
        x: jax.Array,
        positions: jax.Array,
        attend: Attend,
        cache: Any,
        kernels: Kernels,
        margins: list[jax.Array] | None = None,
        attend_joined: AttendJoined | None = None,
    ) -> tuple[jax.Array, Any]:
        """All layers on x [B, T, D] at positions int32 [B, T]; returns (hidden [B, T, D], cache).

        `attend_joined` is there where `kernels.step` has the part "attention". `margins` is filled with float32
        [B, T] a layer that chooses (experts): by how much the choice was made.
        """
        ...

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] -> float32 [..., V]."""
        ...


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

    def layer_scratch(self, tokens: int, item: int) -> int:
        """Bytes that the linear parts of a layer need for so many tokens, of numbers of `item` bytes."""
        ...

    def encode_scratch(self, images: int, crops: int, item: int) -> int:
        """Bytes that the encoder needs."""
        ...
