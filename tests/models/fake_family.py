"""A family made up for tests, as unlike Moondream as the protocol allows: text in front of the image, all of it causal,
grouped heads, RMSNorm, gated MLPs, tokens that are ids alone, several stop ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.image.crops import Crops
from jaxphoton.layers.mlp import gated_mlp
from jaxphoton.layers.norms import rms_norm
from jaxphoton.layers.rope import rotary_frequencies, rotary_tables, rotate
from jaxphoton.layers.weight import Dense, matmul
from jaxphoton.models.protocol import IMAGE, CacheSpec, Prompt, Segments
from jaxphoton.requests.settings import Settings

BOS, SIDE, PATCH = 1, 8, 4
INNER, EPSILON, THETA = 48, 1e-6, 10_000.0


def bound(data: dict[str, Any]) -> FakeFamily:
    return FakeFamily({key: data[key] for key in ("layers", "vocab_size")})


class FakePictures:
    def settings(self):
        return {}

    @classmethod
    def from_settings(cls, settings):
        return cls()

    def needed_size(self, height, width):
        return SIDE, SIDE

    def count(self, height, width):
        return 1

    def prepare(self, picture, size=None, resize="exact"):
        pixels = np.asarray(picture)
        rows, columns = (np.arange(SIDE) * n // SIDE for n in pixels.shape[:2])
        return Crops(pixels[rows][:, columns][None], (1, 1))


class FakeFamily:
    name, causal, fixed_prefix, reasons = "fake", True, False, False
    answer_id = readout = None
    max_context, width, heads, max_crops = 64, 32, 4, 1
    prefix_lengths = (8, 16)
    image_tokens = (SIDE // PATCH) ** 2
    stop_ids = frozenset({2, 3})
    defaults = Settings(temperature=0.0, max_tokens=20)

    def __init__(self, config: dict[str, int]):
        self.config, self.vocab_size = config, config["vocab_size"]
        self.cache = CacheSpec(config["layers"], 2, 16)
        self.pictures = FakePictures()
        self.grammars = {"text": Grammar({"text": State(stop=self.stop_ids, suppress=frozenset({BOS}))})}

    @cached_property
    def network(self):
        return FakeNetwork(self)

    def with_coordinates(self, divisor):
        return self

    def to_json(self):
        return {"model_type": "fake", **self.config}

    def segments(self, prompt: Prompt, image: Crops | None, further: Sequence[Crops] = ()) -> Segments:
        front = (BOS, *prompt.before)
        prefix = () if image is None else (*front, *[IMAGE] * self.image_tokens)
        ids, blocks = list(() if image is not None else front), []
        for place, (start, stop) in enumerate(pairwise((0, *prompt.pictures, len(prompt.ids)))):
            if place:  # a block is an id of its own, and the embeddings
                blocks.append((len(ids), len(ids) + 1 + self.image_tokens))
                ids += [BOS, *[IMAGE] * self.image_tokens]
            ids += prompt.ids[start:stop]
        fed = np.zeros((len(ids), 0), np.int32)
        return Segments(np.array(prefix, np.int32), np.array(ids, np.int32), fed, tuple(blocks))

    def pack(self, pictures, images, crops, guard):
        pixels = np.zeros((images, SIDE, SIDE, 3), np.uint8)
        for index, picture in enumerate(pictures):
            with guard(index):
                pixels[index] = picture.pixels[0]
        return (pixels,)

    def vision_buckets(self, images):
        return (1, 1), (images, images)

    def layer_scratch(self, tokens, item, ways=1):
        return tokens * (2 * INNER + 4 * self.width) * item

    def encode_scratch(self, images, crops, item, ways=1):
        return images * self.image_tokens * self.width * item


class FakeNetwork:
    def __init__(self, family: FakeFamily):
        self.family = family

    def abstract(self, dtype, **form):
        family, spec = self.family, self.family.cache

        def matrix(*shape):
            return Dense(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)))

        def vector():
            return jax.ShapeDtypeStruct((family.width,), jnp.dtype(dtype))

        q, kv, width = family.heads * spec.head_dim, spec.n_kv_heads * spec.head_dim, family.width
        layer = {"q": (q, width), "k": (kv, width), "v": (kv, width), "o": (width, q)}
        layer |= {"gate": (INNER, width), "up": (INNER, width), "down": (width, INNER)}
        layers = [
            {name: matrix(*shape) for name, shape in layer.items()} | {"n1": vector(), "n2": vector()}
            for _ in range(spec.n_layers)
        ]
        text = {"layers": layers, "norm": vector(), "head": matrix(family.vocab_size, width)}
        table = jax.ShapeDtypeStruct((family.vocab_size, width), jnp.dtype(dtype))
        return {"vision": {"patch": matrix(width, 3 * PATCH**2)}, "text": text | {"table": table}}

    def encoder(self, params):
        return params["vision"]

    def decoder(self, params):
        return {"text": params["text"]}

    def dtype(self, params):
        return params["text"]["table"].dtype

    def kv_scale(self, params):
        return None

    def encode(self, encoder, pixels, *, images, kernels):
        grid = SIDE // PATCH
        patches = pixels.reshape(images, grid, PATCH, grid, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
        scaled = patches.reshape(images, grid * grid, -1).astype(jnp.float32) / 127.5 - 1
        return matmul(scaled.astype(encoder["patch"].matrix.dtype), encoder["patch"])

    def embed_prefix(self, params, ids, embeddings):
        place = jnp.maximum(jnp.cumsum(ids == IMAGE, axis=1) - 1, 0)[..., None]
        text = params["text"]["table"][jnp.maximum(ids, 0)]
        return jnp.where((ids == IMAGE)[..., None], jnp.take_along_axis(embeddings, place, axis=1, mode="clip"), text)

    def embed(self, params, ids, fed):
        return params["text"]["table"][ids]

    def forward(self, params, x, positions, attend, cache, kernels, margins=None, attend_joined=None):
        spec, shape = self.family.cache, x.shape[:2]
        tables = rotary_tables(positions, rotary_frequencies(spec.head_dim, THETA))
        for index, layer in enumerate(params["text"]["layers"]):
            h = rms_norm(x, layer["n1"], EPSILON)
            q, k, v = (matmul(h, layer[name]).reshape(*shape, -1, spec.head_dim) for name in "qkv")
            out, cache = attend(index, rotate(q, *tables), rotate(k, *tables), v, cache)
            x = x + matmul(out.reshape(*shape, -1), layer["o"])
            h = rms_norm(x, layer["n2"], EPSILON)
            x = x + gated_mlp(h, layer["gate"], layer["up"], layer["down"])
        return x, cache

    def logits(self, params, hidden):
        text = params["text"]
        return matmul(rms_norm(hidden, text["norm"], EPSILON), text["head"], jnp.float32)
