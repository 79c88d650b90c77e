"""Write expected results of the `shapes` model in float32: python scripts/make_shapes_golden.py.

The network is the PyTorch one it was trained with: independent code to hold an engine against.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from shapes.crops import make_crops
from shapes.decoding import Decoder, Found, find, margin, speak, without_image
from shapes.export import load
from shapes.layers import CELLS, PREFIX
from shapes.net import Shapes
from shapes.tokenizer import BOS, Words
from shapes.vision import pool, stitch
from torch import Tensor

from jaxphoton.measure.shapes import texts
from jaxphoton.measure.shapes.scenes import Scene, make_scene

SEED = 80_001
PROVENANCE = "scripts/make_shapes_golden.py: the training network in PyTorch, float32"
# bins next to each other are close by training; below this the argmax could turn with the hardware
LEAST_MARGIN = 0.02
PICTURES = (((1, 1), (64, 60), 2), ((2, 2), (112, 112), 3))
TEXT_CONVENTION = "logits[k] selects tokens[k]; raw, before suppression (of id 3 in answers)"
Cases = dict[str, dict[str, Any]]
Arrays = dict[str, np.ndarray]


class Recorder:
    """Runs the cases and collects arrays and notes."""

    def __init__(self, net: Shapes, words: Words, scenes: list[Scene]) -> None:
        self.net, self.words, self.scenes = net, words, scenes
        self.arrays: Arrays = {}
        self.images: Arrays = {}
        self.cases: Cases = {}
        self.embedded: list[Tensor] = []

    def put(self, case: str, **values: Tensor | np.ndarray | list) -> None:
        """Keep arrays of a case: whole numbers as int32, all others as float32."""
        for name, value in values.items():
            array = np.asarray(value)
            kind = array.dtype
            if kind != np.uint8:
                kind = np.int32 if np.issubdtype(kind, np.integer) else np.float32
            self.arrays[f"{case}.{name}"] = np.ascontiguousarray(array.astype(kind))

    def note(self, case: str, **values: object) -> None:
        """Keep the facts of a case."""
        self.cases[case] = {"provenance": PROVENANCE, **values}

    def least_margin(self) -> float:
        """Return the smallest distance between best and second choice in any case."""
        return min(case.get("min_margin", np.inf) for case in self.cases.values())

    def image(self, index: int) -> None:
        """Record one picture through the vision part."""
        pixels = self.scenes[index].pixels
        crops, tiling = make_crops(pixels)
        name = f"image{index}"
        self.images |= {f"{name}.pixels": pixels, f"{name}.crops": crops}
        vision = self.net.vision
        encoded = vision.encode(torch.from_numpy(crops))
        reconstructed = stitch(encoded[None, 1:], tiling)
        pooled = pool(reconstructed)
        projected = vision.project(encoded[:1], pooled)
        self.embedded.append(projected)
        parts = {"reconstructed": reconstructed[0], "pooled": pooled[0], "projected": projected[0]}
        self.put(name, encoded=encoded, **parts)
        height, width = pixels.shape[:2]
        self.note(name, height=height, width=width, tiling=list(tiling), n_crops=len(crops))
        if index == 0:
            self.first_pixels(crops[0])

    def first_pixels(self, crop: np.ndarray) -> None:
        """Record normalised pixels and patch rows of a global crop."""
        normal = (crop.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)
        self.images["image0.normalized_corner"] = np.ascontiguousarray(normal[:, :8, :8])
        rows = normal.reshape(3, 8, 8, 8, 8).transpose(1, 3, 0, 2, 4).reshape(CELLS, -1)
        self.images["image0.patches_global_crop"] = np.ascontiguousarray(rows[:8])

    def decoder(self, index: int) -> Decoder:
        """Return a fresh decoder behind a picture."""
        return Decoder(self.net, self.net.prefix(self.embedded[index]))

    def prefill(self, index: int, question: str) -> None:
        """Record a prompt in one pass with all layers, and plain greedy tokens after it."""
        net, prompt = self.net, self.words.query_prompt(question)
        start, rest = net.text.wte[[BOS]], net.text.wte[torch.tensor(prompt)]
        x = torch.cat([start, self.embedded[index][0], rest])[None]
        total = x.shape[1]
        mask = torch.ones(total, total, dtype=torch.bool).tril()
        mask[:PREFIX, :PREFIX] = True
        layers = [x]
        for block in net.text.blocks:
            layers.append(block(layers[-1], torch.arange(total)[None], mask, None)[0])
        logits = net.text.logits(layers[-1][0, PREFIX:])
        self.put(
            "prefill",
            prompt=prompt,
            mask=mask.to(torch.uint8),
            layer_hidden=torch.cat(layers),
            logits=logits,
            final_normed_last=net.text.post_ln(layers[-1][0, -1]),
        )
        two_steps = net.text.logits(self.decoder(index).feed_tokens(prompt))
        gap = float((two_steps - logits).abs().max())
        note = f"one-pass prefill equals prefix-then-prompt prefill to {gap:.1e}"
        sizes = {"prefix_len": PREFIX, "total_len": total}
        self.note("prefill", image=index, question=question, **sizes, note=note)
        spoken = speak(self.decoder(index), prompt, 12, stop=False)
        hidden, chosen = torch.stack(spoken.hidden), torch.stack(spoken.logits)
        self.put("decode", tokens=spoken.tokens, logits=chosen, hidden=hidden)
        note = "no stop and no suppression; hidden[i] is the last-block output after tokens[i]"
        least = min(margin(row) for row in chosen)
        self.note("decode", continues="prefill", min_margin=least, note=note)

    def text(self, case: str, index: int, prompt: list[int], **facts: object) -> None:
        """Record a caption or an answer."""
        spoken = speak(self.decoder(index), prompt)
        self.put(case, prompt=prompt, tokens=spoken.tokens, logits=torch.stack(spoken.logits))
        least = min(margin(row) for row in spoken.logits)
        said = self.words.decode(spoken.tokens)
        self.note(case, image=index, **facts, text=said, min_margin=least, note=TEXT_CONVENTION)

    def text_only(self, question: str) -> None:
        """Record a question without a picture."""
        prompt = self.words.query_prompt(question)
        hidden, spoken = without_image(self.net, prompt, 6)
        logits = self.net.text.logits(hidden[-1])
        tokens = spoken.tokens or [-1]
        self.put("text_only", prompt=[BOS, *prompt], hidden=hidden, logits=logits, tokens=tokens)
        least = min(margin(row) for row in spoken.logits)
        note = "no image: plain causal mask; tokens: greedy, at most 6, [-1] if none"
        self.note("text_only", question=question, min_margin=least, note=note)

    def find(self, skill: str, index: int, label: str) -> None:
        """Record a detect or point prompt."""
        prompt = self.words.find_prompt(skill, label)
        found: Found = find(self.decoder(index), prompt, skill)
        names = ("x_min", "y_min", "x_max", "y_max") if skill == "detect" else ("x", "y")
        self.put(
            f"{skill}_upstream",
            prompt=prompt,
            bins=found.bins,
            values=found.values,
            objects=found.objects,
            decision_logits=found.decisions,
            hidden=torch.stack(found.hidden),
            token_ids=found.token_ids,
        )
        self.note(
            f"{skill}_upstream",
            image=index,
            label=label,
            max_objects=50,
            min_margin=min(found.margins),
            objects=[dict(zip(names, row, strict=True)) for row in found.objects],
            note="coordinate = bin/256, box corners not clamped",
        )

    def region(self) -> None:
        """Record the encoders, decoders and bin values by themselves."""
        region = self.net.region
        bins = torch.tensor([0, 1, 2, 63, 127, 128, 200, 254, 255])
        coords = torch.linspace(0.0, 1.0, 9)
        sizes = torch.tensor([[0.1, 0.2], [0.25, 0.5], [1.0, 1.0], [0.001, 0.9], [0.4, 0.3]])
        hidden = self.decoder(1).feed_tokens(self.words.find_prompt("detect", "object"))[-3:]
        self.put(
            "region",
            bins=bins,
            bin_to_coord_upstream=bins / region.bins,
            bin_to_coord_photon=bins / (region.bins - 1),
            bin_to_size=region.bin_to_size(bins),
            coord_values=coords,
            coord_embeds=region.encode_coord(coords[:, None]),
            size_values=sizes,
            size_embeds=region.encode_size(sizes),
            hidden=hidden,
            coord_logits=region.coord_decoder(hidden),
            size_logits=region.sizes(hidden),
        )
        note = "bin_to_coord_upstream = bin/256, bin_to_coord_photon = bin/255"
        self.note("region", note=note)


def record(net: Shapes, words: Words, seed: int) -> Recorder:
    """Run all cases on the pictures of a seed."""
    scenes = [
        make_scene(np.random.default_rng([seed, number]), tiling, size, count)
        for number, (tiling, size, count) in enumerate(PICTURES)
    ]
    recorder = Recorder(net, words, scenes)
    for index in range(len(scenes)):
        recorder.image(index)
    name = scenes[1].things[0].name
    recorder.prefill(1, texts.COUNT_FORMS[1].format(texts.PLURALS[name]))
    recorder.region()
    recorder.find("detect", 1, "object")
    recorder.find("point", 0, scenes[0].things[0].name)
    place = texts.WHERE_FORM.format(scenes[0].things[0].name)
    recorder.text("query", 0, words.query_prompt(place), question=place)
    recorder.text("caption", 1, words.caption_prompt(texts.NORMAL), length=texts.NORMAL)
    recorder.text_only(texts.YES_NO_FORM.format("star"))
    return recorder


def main() -> None:
    """Write the golden set."""
    parser = argparse.ArgumentParser(description=__doc__)
    assets = Path(__file__).parent.parent / "jaxphoton" / "assets" / "shapes"
    parser.add_argument("--model", type=Path, default=assets)
    parser.add_argument("--out", type=Path, default=assets / "golden")
    options = parser.parse_args()
    with torch.inference_mode():
        net, words = load(options.model)
        for seed in itertools.count(SEED):
            recorder = record(net, words, seed)
            if recorder.least_margin() >= LEAST_MARGIN:
                break
    (options.out / "shapes").mkdir(parents=True, exist_ok=True)
    save_file(recorder.images, options.out / "images.safetensors")
    save_file(recorder.arrays, options.out / "shapes" / "cases.safetensors")
    for path in options.out.rglob("*.safetensors"):
        path.chmod(0o644)
    notes = {"model": "shapes", "set": "shapes", "seed": seed, "cases": recorder.cases}
    (options.out / "shapes" / "cases.json").write_text(json.dumps(notes, indent=1) + "\n")


if __name__ == "__main__":
    main()
