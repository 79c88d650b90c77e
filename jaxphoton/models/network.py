"""The device side of a family: pure functions of device programs. No jax at import; sizes as in `models.protocol`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import jax
    from jax.typing import DTypeLike

    from jaxphoton.models.adapters import Adapter
    from kernels_pallas.dispatch import Target

# attend(layer, q [B, T, heads, H], k, v [B, T, K, H], cache) -> (output [B, T, heads, H], cache): the seam between a
# network and whatever holds the keys and values.
Attend = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]
# attend_joined(layer, u [B, Q + F], cos, sin float32 [B, R / 2], factors, cache) -> (output [B, heads H], cache): the
# same for one position a row, from the whole input product of a layer, whose first Q columns are q, k and v before they
# are rotated and q and v multiplied by their factors: (parts float32 [S, B, 2 heads], terms float32 [L, B, heads]) of
# `kernels_pallas.step_attention`, or None.
AttendJoined = Callable[[Any, Any, Any, Any, Any, Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Kernels:
    """How a program's attention and sampling are computed.

    Attributes:
      backend: as in `EngineConfig.kernels`; "plain": no operation of kernels_pallas at all, for the oracle.
      target: the device the program is compiled for; None for jax's default device.
      step: of a decode step, the parts of a dense layer that kernels compute (of `jaxphoton.config.STEP_PARTS`; XLA
        computes the others). Empty in programs of more positions than one a row.
      crops: axes of a mesh whose devices share the crops of pictures, each with a whole encoder.
    """

    backend: str = "auto"
    target: Target | None = None
    step: tuple[str, ...] = ()
    crops: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        return {"backend": self.backend, "target": self.target}


class Network(Protocol):
    """The device side: pure functions. `params` is the whole tree where nothing else is said."""

    def abstract(self, dtype: DTypeLike, form: Any = None) -> Any:
        """The tree of parameters as jax.ShapeDtypeStruct, with plain matrices; its first level are the parts that
        memory plans name.

        `form` is what a checkpoint decides beside the settings (`models.tensors`), None for the published form.
        """
        ...

    def specs(self, dtype: DTypeLike, form: Any = None) -> Any:
        """The same tree with `jaxphoton.layers.spec.Spec` leaves."""
        ...

    def counts(self) -> dict[str, int]:
        """How many there are of each logical axis that a mesh may share out: heads, experts, numbers of a width."""
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
        `jaxphoton.layers.spec.Spec` leaves."""
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
