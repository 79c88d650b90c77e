"""What checkpoints call the tensors of the text decoder, behind the name of the decoder itself."""

from __future__ import annotations

from collections.abc import Iterable

from jaxphoton.models.llama.config import TextConfig
from jaxphoton.models.llama.params import gate_up_rows, qkv_rows
from jaxphoton.models.naming import Placement, Use

HEAD = "lm_head.weight"
EMBEDDINGS = "embed_tokens.weight"


def placements(c: TextConfig, root: str) -> Iterable[Placement]:
    """The placements of a decoder and its head under `text`; canonical names but the head's begin with `root`."""
    yield Placement(f"{root}.{EMBEDDINGS}", "text.wte")
    for i in range(c.num_hidden_layers):
        layer, leaf = f"{root}.layers.{i}", f"text.layers.{i}"
        for j, name in enumerate(("input_layernorm", "post_attention_layernorm")):
            yield Placement(f"{layer}.{name}.weight", "text.norm", (i, j))
        for name, rows in qkv_rows(c).items():
            yield Placement(f"{layer}.self_attn.{name}_proj.weight", f"{leaf}.qkv_w", (rows,))
        yield Placement(f"{layer}.self_attn.o_proj.weight", f"{leaf}.out_w")
        for name, rows in gate_up_rows(c).items():
            yield Placement(f"{layer}.mlp.{name}_proj.weight", f"{leaf}.up_w", (rows,))
        yield Placement(f"{layer}.mlp.down_proj.weight", f"{leaf}.down_w")
    yield Placement(f"{root}.norm.weight", "text.post_norm")
    yield Placement(HEAD, "text.lm_head_w")


def uses(c: TextConfig) -> dict[str, Use]:
    """The matrices that may be in few bits, by their path."""
    found: dict[str, Use] = {"text.lm_head_w": "head"}
    for i in range(c.num_hidden_layers):
        found |= {f"text.layers.{i}.{name}_w": "layers" for name in ("qkv", "out", "up", "down")}
    return found
