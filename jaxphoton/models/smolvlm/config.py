"""Settings of a model, under the names that its `config.json` has for them where that has them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from jaxphoton.config.fields import check_fields, fitting, flag, require, whole
from jaxphoton.models.limits import MAX_PARAMETERS, MAX_VOCABULARY
from jaxphoton.models.llama.config import GenerationConfig, TextConfig, are_ids
from jaxphoton.models.siglip.config import VisionConfig

SIDE = 6  # rows, and columns, of tiles that the published vocabulary has tokens for; none has more
MOST_PIXELS = 4096  # of a side of a picture before it is cut


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of special tokens; by default those of the published vocabulary.

    Attributes:
      im_start: begins every prompt, once.
      end_of_utterance: ends every message, and answers.
      fake: in front of each frame of a picture, and behind the last.
      global_image: names the frame that is the whole picture.
      tiles: names of the others, `side` rows of as many each.
    """

    im_start: int = whole(1, 0, MAX_VOCABULARY)
    end_of_utterance: int = whole(49279, 0, MAX_VOCABULARY)
    fake: int = whole(49189, 0, MAX_VOCABULARY)
    global_image: int = whole(49152, 0, MAX_VOCABULARY)
    tiles: tuple[int, ...] = fitting(
        tuple(range(49153, 49153 + SIDE**2)),
        lambda ids: are_ids(ids) and len(ids) in [side**2 for side in range(SIDE + 1)],
        f"the ids of up to {SIDE} rows of as many",
    )

    def __post_init__(self):
        check_fields(self, "tokens")

    @property
    def side(self) -> int:
        """Rows, and columns, of tiles that have names."""
        return math.isqrt(len(self.tiles))

    def tile(self, row: int, column: int) -> int:
        """The name of a tile, both counted from 0."""
        return self.tiles[self.side * row + column]

    @property
    def named(self) -> dict[str, int]:
        """The ids by what the tokenizer calls them."""
        single = zip(SINGLE, (getattr(self, each.name) for each in fields(self)[:-1]), strict=True)
        return dict(single) | dict(zip(tile_names(self.side), self.tiles, strict=True))


def tile_names(side: int) -> tuple[str, ...]:
    return tuple(f"<row_{row + 1}_col_{column + 1}>" for row in range(side) for column in range(side))


SINGLE = ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>")
NAMES = (*SINGLE, *tile_names(SIDE))


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How pictures are prepared.

    Attributes:
      longest_edge: of a picture before it is cut, in pixels.
      splitting: whether it is cut into tiles; else it is one frame.
    """

    longest_edge: int = whole(1536, 1, 2**20)
    splitting: bool = flag(True)

    def __post_init__(self):
        check_fields(self, "preprocessor_config")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All settings of one model.

    Attributes:
      vision: a frame is a square of its `image_size`.
      scale_factor: rows and columns of patches that become one embedding.
      image_token_id: the id that stands for an image embedding in a text.
      tie_word_embeddings: whether the embeddings are the head's matrix.
      tokens: ids of what stands around texts and frames.
      image: how pictures are prepared.
      generation: what stands beside it on how to generate.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    scale_factor: int = whole(2, 1, 64)
    image_token_id: int = whole(49190, 0, MAX_VOCABULARY)
    tie_word_embeddings: bool = flag(False)
    tokens: SpecialTokens = field(default_factory=SpecialTokens)
    image: ImageConfig = field(default_factory=ImageConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)

    @property
    def frame_tokens(self) -> int:
        """Embeddings of a frame."""
        return (self.vision.grid // self.scale_factor) ** 2

    @property
    def side(self) -> int:
        """The most tiles along a side of a picture; 1 if none is cut."""
        return self._tiles(self.image.longest_edge + self.image.longest_edge % 2)  # short sides become even

    @property
    def long_side(self) -> int:
        """Tiles along the long side of nearly every picture: all but some squares of an odd number of pixels."""
        return self._tiles(self.image.longest_edge)

    def _tiles(self, pixels: int) -> int:
        return math.ceil(min(pixels, MOST_PIXELS) / self.vision.image_size) if self.image.splitting else 1

    @property
    def max_frames(self) -> int:
        """Of one picture."""
        return 1 if self.side == 1 else self.side**2 + 1

    def __post_init__(self):
        check_fields(self, "settings")
        vision, text, grid = self.vision, self.text, self.vision.grid
        fits = grid % self.scale_factor == 0
        require(fits, f"scale_factor ({self.scale_factor}) must divide the {grid} patches of a frame's side")
        named = self.tokens.side
        fits = self.side <= max(named, 1)  # a picture that is one frame has no tile
        require(fits, f"pictures have up to {self.side} tiles a side, and the vocabulary has names for {named}")
        ids = {"image_token_id": self.image_token_id, **self.tokens.named}
        ids |= {f"generation_config.eos_token_id[{i}]": end for i, end in enumerate(self.generation.eos_token_id)}
        beyond = next((name for name, index in ids.items() if index >= text.vocab_size), "")
        require(not beyond, f"{beyond} is {ids.get(beyond)}, which is no token id: vocab_size is {text.vocab_size}")
        size = vision.num_hidden_layers * vision.layer_size + text.matrices_size
        size += text.hidden_size * vision.hidden_size * self.scale_factor**2
        require(size <= MAX_PARAMETERS, f"these settings have {size:.3g} parameters: the most is {MAX_PARAMETERS:.3g}")
