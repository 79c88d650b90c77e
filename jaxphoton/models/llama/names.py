"""What checkpoints call the tensors of the text decoder, behind the name of the decoder itself."""

from __future__ import annotations

from collections.abc import Iterable

from jaxphoton.models.llama.config import TextConfig
from jaxphoton.models.naming import Placement, Use

HEAD = "lm_head.weight"
EMBEDDINGS = "embed_tokens.weight"


def placements(c: TextConfig, root: str) -> Iterable[Placement]:
    """The placements of a decoder and its head under `text`; canonical names but the head's begin with `root`."""
    q, kv, ff = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim, c.intermediate_size
    rows = {"q": slice(0, q), "k": slice(q, q + kv), "v": slice(q + kv, q + 2 * kv)}
    yield Placement(f"{root}.{EMBEDDINGS}", "text.wte")
    for i in range(c.num_hidden_layers):
        layer, leaf = f"{root}.layers.{i}", f"text.layers.{i}"
        for j, name in enumerate(("input_layernorm", "post_attention_layernorm")):
            yield Placement(f"{layer}.{name}.weight", "text.norm", (i, j))
        for name in "qkv":
            yield Placement(f"{layer}.self_attn.{name}_proj.weight", f"{leaf}.qkv_w", (rows[name],))
        yield Placement(f"{layer}.self_attn.o_proj.weight", f"{leaf}.out_w")
        for name, half in (("gate", slice(0, ff)), ("up", slice(ff, 2 * ff))):
            yield Placement(f"{layer}.mlp.{name}_proj.weight", f"{leaf}.up_w", (half,))
        yield Placement(f"{layer}.mlp.down_proj.weight", f"{leaf}.down_w")
    yield Placement(f"{root}.norm.weight", "text.post_norm")
    yield Placement(HEAD, "text.lm_head_w")


def uses(c: TextConfig) -> dict[str, Use]:
    """The matrices that may be in few bits, by their path."""
    found: dict[str, Use] = {"text.lm_head_w": "head"}
    for i in range(c.num_hidden_layers):
        found |= {f"text.layers.{i}.{name}_w": "layers" for name in ("qkv", "out", "up", "down")}
    return found
