"""What files of adapters call the modules of the text decoder. No jax at import.

Beside PEFT's, which has the names of a checkpoint, there are two forms of Moondream's own: variants of Moondream 2
(`text_model.transformer.h.N.mixer.Wqkv.parametrizations.weight.0.A`), and finetunes, of MLPs alone
(`text_lora.dense.N.up_a`, `text_lora.moe.N.down_b`, where N counts from the first layer with experts).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from jaxphoton.models.moondream.config import TextConfig

# Of a variant the pair of the attention's output reads the block's input, not what the matrix beside it reads.
_VARIANT_MODULES = {
    "mixer.Wqkv": "attn.qkv",
    "mixer.out_proj": "attn.proj@input",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj@input",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_VARIANT = re.compile(
    r"(?:text_model\.transformer\.h|(?:model\.)?text\.blocks)\.([0-9]{1,6})\."
    rf"({'|'.join(map(re.escape, _VARIANT_MODULES))})(?:\.parametrizations\.weight\.0)?\.([AB])"
)
# The engine that these are for has one module under both names.
_FINETUNE = re.compile(r"(?:(?:.*\.)?(?:_text|text_lora)\.)?(dense|moe)\.([0-9]{1,6})\.(up|down)_([ab])")


class MoondreamAdapterNames:
    """`protocol.AdapterNames` of one model.

    Args:
      module: the canonical name of a checkpoint's module.
    """

    def __init__(self, config: TextConfig, module: Callable[[str], str]):
        self._config, self._module = config, module
        self.shapes: Mapping[str, tuple[int, ...]] = dict(self._shapes())
        self.merged: Mapping[str, tuple[int, ...]] = {}  # no form of theirs has any

    def module(self, path: str) -> str:
        return self._module(path)

    def is_unused(self, module: str) -> bool:
        return False

    def pair(self, tensor: str) -> tuple[str, str] | None:
        tensor = tensor.replace("._orig_mod", "")
        if found := _VARIANT.fullmatch(tensor):
            block, module, matrix = found.groups()
            return f"text.blocks.{int(block)}.{_VARIANT_MODULES[module]}", matrix.lower()
        if found := _FINETUNE.fullmatch(tensor):
            kind, row, module, matrix = found.groups()
            moe = self._config.moe
            first = self._config.n_layers if moe is None else moe.start_layer
            block = int(row) + (first if kind == "moe" else 0)
            return f"text.blocks.{block}.mlp.{'fc1' if module == 'up' else 'fc2'}", matrix
        return None

    def _shapes(self):
        c, moe = self._config, self._config.moe
        for i in range(c.n_layers):
            block = f"text.blocks.{i}"
            yield f"{block}.attn.qkv", (c.qkv_dim, c.dim)
            yield f"{block}.attn.proj", (c.dim, c.n_heads * c.head_dim)
            if moe is None:
                yield f"{block}.attn.proj@input", (c.dim, c.dim)
            if moe is not None and i >= moe.start_layer:
                yield f"{block}.mlp.fc1", (moe.num_experts, 2 * moe.expert_inner_dim, c.dim)
                yield f"{block}.mlp.fc2", (moe.num_experts, c.dim, moe.expert_inner_dim)
            else:
                yield f"{block}.mlp.fc1", (c.ff_dim, c.dim)
                yield f"{block}.mlp.fc2", (c.dim, c.ff_dim)
