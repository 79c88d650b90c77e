"""Settings of a model, under the names that its `config.json` has for them. Defaults are those of the classes that the
files are of: such a file leaves out what equals them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxphoton.config.fields import check_fields, choice, fitting, flag, require, whole
from jaxphoton.image.ways import FILTERS, Filter
from jaxphoton.models.limits import MAX_LAYERS, MAX_PARAMETERS, MAX_VOCABULARY
from jaxphoton.models.llama.config import GenerationConfig, TextConfig, are_ids
from jaxphoton.models.siglip.config import VisionConfig


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The special ids of a vocabulary of Llama 3: all at the same distance from BOS, but for those around an image.

    Attributes:
      bos: BOS; a prompt has one.
      image: stands for an image embedding; an image is opened and closed by the two behind it.
    """

    bos: int
    image: int

    @property
    def stops(self) -> frozenset[int]:
        """End of text, of a message that calls a tool, and of a turn."""
        return frozenset({self.bos + 1, self.bos + 8, self.end_of_turn})

    @property
    def end_of_turn(self) -> int:
        return self.bos + 9

    @property
    def named(self) -> dict[str, int]:
        """What stands in prompts, by what the tokenizer calls it."""
        single = {
            "<|start_header_id|>": self.bos + 6,
            "<|end_header_id|>": self.bos + 7,
            "<|eot_id|>": self.end_of_turn,
        }
        image = {f"<|reserved_special_token_{69 + i}|>": self.image + i for i in range(3)}
        return {"<|begin_of_text|>": self.bos} | single | image

    def header(self, role: list[int]) -> list[int]:
        return [self.bos + 6, *role, self.bos + 7]

    @property
    def image_start(self) -> int:
        return self.image + 1

    @property
    def image_end(self) -> int:
        return self.image + 2


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All settings of one model.

    Attributes:
      vision_feature_layer: whose output the projector reads: 0 is the input of the first layer of the vision encoder,
        i the output of layer i; -1 and down count from the last.
      image_token_index: the id that stands for an image embedding in a text.
      eos_token_id: ids that end a text.
      resample: the filter of resizing: "lanczos", the author's, or "bicubic", that of the processor of Hugging Face.
      tie_word_embeddings: whether the embeddings are the head's matrix.
      generation: what stands beside it on how to generate.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    vision_feature_layer: int = whole(-2, -MAX_LAYERS, MAX_LAYERS)
    image_token_index: int = whole(32000, 0, MAX_VOCABULARY)
    bos_token_id: int = whole(1, 0, MAX_VOCABULARY)
    eos_token_id: tuple[int, ...] = fitting((2,), lambda ids: are_ids(ids) and len(ids) > 0, "one or more ids")
    tie_word_embeddings: bool = flag(False)
    resample: Filter = choice(*FILTERS)
    generation: GenerationConfig = field(default_factory=GenerationConfig)

    @property
    def vision_layers(self) -> int:
        """How many layers of the vision encoder are run."""
        layer = self.vision_feature_layer
        return layer if layer >= 0 else self.vision.num_hidden_layers + 1 + layer

    def __post_init__(self):
        check_fields(self, "settings")
        layers, text = self.vision.num_hidden_layers, self.text
        require(
            1 <= self.vision_layers <= layers,
            f"vision_feature_layer ({self.vision_feature_layer}) must name one of {layers} layers",
        )
        for name, ids in (
            ("image_token_index", (self.image_token_index,)),
            ("bos_token_id", (self.bos_token_id,)),
            ("eos_token_id", self.eos_token_id + self.generation.eos_token_id),
        ):
            beyond = next((index for index in ids if index >= text.vocab_size), None)
            require(beyond is None, f"{name} holds {beyond}, which is no token id: vocab_size is {text.vocab_size}")
        for name, index in SpecialIds(self.bos_token_id, self.image_token_index).named.items():
            fault = f"{name} is {index} by the settings, which is no token id: vocab_size is {text.vocab_size}"
            require(index < text.vocab_size, fault)
        size = self.vision_layers * self.vision.layer_size + text.matrices_size
        size += text.hidden_size * (self.vision.hidden_size + text.hidden_size)
        require(size <= MAX_PARAMETERS, f"these settings have {size:.3g} parameters: the most is {MAX_PARAMETERS:.3g}")
