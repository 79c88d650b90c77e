"""Settings of a model from a `config.json` in the Idefics3 form of Hugging Face, and back.

That file does not say all: the ids of special tokens stand in the tokenizer, and how pictures are prepared in a file of
its own. `beside` reads both under names of their own, under which `config_to_dict` writes them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxphoton.config.fields import OtherFamily, require
from jaxphoton.messages import quoted
from jaxphoton.models.beside import TOKENS, added_tokens, read_object
from jaxphoton.models.llama import reading as llama
from jaxphoton.models.llama.reading import chosen, part
from jaxphoton.models.siglip import config as siglip
from jaxphoton.models.siglip.config import VisionConfig
from jaxphoton.models.smolvlm.config import NAMES, SIDE, SINGLE, ImageConfig, ModelConfig, SpecialTokens, tile_names

PICTURES = "preprocessor_config"
IMAGE = "<image>"
PUBLISHED = (49280, 49190)  # the vocabulary's size, and its id for an image embedding
# The class's defaults where they are others than those of the encoder that the form is used with elsewhere.
VISION = {"hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}

ONLY: tuple[llama.Only, ...] = (
    ("vision_config", "model_type", "smolvlm_vision", ("smolvlm_vision", "idefics3_vision")),
    *siglip.ONLY,
    *llama.ONLY,
    ("text_config", "use_resampler", False, (False,)),
    ("text_config", "qk_layer_norms", False, (False,)),
    ("text_config", "rope_interleaved", False, (False,)),
    ("", "use_resampler", False, (False,)),
    (PICTURES, "do_resize", True, (True,)),
    (PICTURES, "do_rescale", True, (True,)),
    (PICTURES, "do_normalize", True, (True,)),
    (PICTURES, "resample", 1, (1,)),
    (PICTURES, "image_mean", [0.5] * 3, ([0.5] * 3,)),
    (PICTURES, "image_std", [0.5] * 3, ([0.5] * 3,)),
)


def beside(folder: Path) -> dict[str, Any]:
    """What other files of a model's folder say of it, as far as they are there.

    Raises:
      ConfigError: one of them cannot be read.
    """
    tokens = added_tokens(folder, (*NAMES, IMAGE))
    # Since transformers 5 it is part of the file of the whole processor.
    pictures = part(read_object(folder / "processor_config.json"), "image_processor") or read_object(
        folder / f"{PICTURES}.json"
    )
    return {name: value for name, value in ((TOKENS, tokens), (PICTURES, pictures)) if value}


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """Settings from those of a `SmolVLMForConditionalGeneration`, and of what is `beside` them.

    Raises:
      OtherFamily: its parts are others than those of SmolVLM2, or put together in another way.
      ConfigError: a setting of the wrong kind or out of range, one that is missing and has no safe default, or some
        that do not fit together.
    """
    names = ("vision_config", "text_config", PICTURES)
    parts = {"": data} | {name: part(data, name) for name in names}
    llama.require_only("SmolVLM", parts, ONLY)
    vision, text = VisionConfig(**VISION | chosen(VisionConfig, parts["vision_config"])), parts["text_config"]
    given = {name: data[name] for name in ("scale_factor", "image_token_id", "tie_word_embeddings") if name in data}
    if text.get("tie_word_embeddings") is True:
        given["tie_word_embeddings"] = True
    read = llama.text_config(text)
    require("image_token_id" in given, "settings have no image_token_id")
    given["tokens"] = _tokens(data, (read.vocab_size, given["image_token_id"]))
    given["image"] = _image(parts[PICTURES], vision.image_size)
    return ModelConfig(vision, read, generation=llama.generation_config(data), **given)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from_dict`, in the newer form."""
    longest = {"longest_edge": config.image.longest_edge}
    tile = {"longest_edge": config.vision.image_size}
    return {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "model_type": "smolvlm",
        "image_token_id": config.image_token_id,
        "scale_factor": config.scale_factor,
        "tie_word_embeddings": config.tie_word_embeddings,
        "vision_config": dataclasses.asdict(config.vision) | {"model_type": "smolvlm_vision"},
        "text_config": llama.text_to_dict(config.text),
        TOKENS: config.tokens.named,
        PICTURES: {"do_image_splitting": config.image.splitting, "size": longest, "max_image_size": tile},
    } | llama.generation_to_dict(config.generation)


def _tokens(data: dict[str, Any], vocabulary: tuple[int, Any]) -> SpecialTokens:
    named = part(data, TOKENS)
    if not named:
        fault = "settings do not tell the ids of special tokens: put the model's tokenizer.json beside them"
        require(vocabulary == PUBLISHED, fault)
        return SpecialTokens()
    if missing := [name for name in SINGLE if name not in named]:
        raise OtherFamily(f"a SmolVLM that is not run here: its tokenizer has no {missing[0]}")
    image = named.get(IMAGE, vocabulary[1])
    fault = f"image_token_id is {quoted(vocabulary[1])}, and {IMAGE} of the tokenizer is {quoted(image)}"
    require(image == vocabulary[1], fault)
    side = max(side for side in range(SIDE + 1) if all(name in named for name in tile_names(side)))
    fields = (each.name for each in dataclasses.fields(SpecialTokens))
    single = dict(zip(fields, (named[name] for name in SINGLE), strict=False))
    return SpecialTokens(**single, tiles=tuple(named[name] for name in tile_names(side)))


def _image(data: dict[str, Any], tile: int) -> ImageConfig:
    """Without a file for it, pictures are of up to four tiles a side, as those of all published models."""
    own = part(data, "max_image_size").get("longest_edge", tile)
    require(own == tile, f"max_image_size.longest_edge is {quoted(own)}, and vision_config.image_size {tile}")
    longest = part(data, "size").get("longest_edge", 4 * tile)
    return ImageConfig(longest, data.get("do_image_splitting", True))
