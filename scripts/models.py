"""Models by the names of their settings: of full size, of as many layers as somebody has time for, or in miniature."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import named_family

SHORT = {"joycaption": "joycaption-beta-one", "smolvlm2": "smolvlm2-2.2b"}
SMALL = "small"  # what the name of a miniature begins with; alone it is Moondream 2
# Wide enough for the kernels' smallest heads, and with vision heads as narrow.
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 512}


def is_small(name: str) -> bool:
    return name.partition("-")[0] == SMALL


def family_named(
    name: str, layers: int | None = None, experts: bool = True, vision_layers: int | None = None
) -> Family:
    """The family of packaged settings, by their name or a shorter one, or behind "small-" its shape in miniature; with
    so many `layers` of the text decoder and of the vision encoder, if said, and without `experts` all of them dense."""
    if is_small(name):
        family = _miniature(named_family(SHORT.get(own, own) if (own := name.partition("-")[2]) else "moondream2"))
    else:
        family = named_family(SHORT.get(name, name))
    text, vision = family.config.text, family.config.vision
    if layers is not None:
        text = _layers(text, "n_layers", layers)
    if vision_layers is not None:
        vision = _layers(vision, "enc_n_layers", vision_layers)
    if not experts:
        text = dataclasses.replace(text, moe=None)
    return _of(family, text=text, vision=vision)


def _layers(part: Any, field: str, layers: int) -> Any:
    return dataclasses.replace(part, **{field if hasattr(part, field) else "num_hidden_layers": layers})


def _of(family: Family, **changes: Any) -> Family:
    bound: Any = type(family)
    return bound(dataclasses.replace(family.config, **changes))


def _miniature(family: Family) -> Family:
    config = family.config
    if family.name == "moondream":
        vision = dataclasses.replace(
            config.vision, enc_dim=32, enc_n_layers=2, enc_ff_dim=64, enc_n_heads=2, proj_out_dim=64, proj_inner_dim=64
        )
        text = dataclasses.replace(config.text, dim=64, ff_dim=128, n_layers=2, n_heads=4, n_kv_heads=4, vocab_size=512)
        return _of(family, vision=vision, text=text, region=dataclasses.replace(config.region, dim=64, inner_dim=64))
    vision, text = dataclasses.replace(config.vision, **_VISION), dataclasses.replace(config.text, **_TEXT)
    return _of(family, vision=vision, text=text, **_ids(family))


def _ids(family: Family) -> dict[str, Any]:
    """Ids that a vocabulary of 512 has."""
    config = family.config
    if family.name == "joycaption":
        return {"image_token_index": 500, "bos_token_id": 501, "eos_token_id": (502, 503)}
    return {"image_token_id": 500, "tokens": type(config.tokens)(1, 503, 501, 460, tuple(range(461, 497)))}
