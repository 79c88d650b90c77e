"""Greedy decoding of one picture at a time, in float32: the reference for other engines."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .decoder import Cache
from .layers import PREFIX
from .net import Shapes
from .tokenizer import BOS, COORD, EOS, SIZE

MAX_TEXT = 64


@dataclass
class Found:
    """What a detect or point prompt gave, with all that led to it."""

    bins: list[list[int]] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    objects: list[list[float]] = field(default_factory=list)
    decisions: list[list[float]] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


@dataclass
class Spoken:
    """A text answer: ids without the stop, logits of every choice, hidden state of every id."""

    tokens: list[int]
    logits: list[Tensor]
    hidden: list[Tensor]


def margin(logits: Tensor) -> float:
    """Return the distance between the best and the second logit."""
    best = logits.topk(2).values
    return float(best[0] - best[1])


class Decoder:
    """A picture's keys and values (or none) in memory, ready for one prompt."""

    def __init__(self, net: Shapes, prefix: Cache | None) -> None:
        self.net, self.past = net, prefix
        self.length = 0 if prefix is None else PREFIX

    def feed(self, x: Tensor) -> Tensor:
        """Append embeddings [length, dim] causally; return their hidden states."""
        count = x.shape[0]
        positions = torch.arange(self.length, self.length + count)[None]
        keys = torch.arange(self.length + count)
        mask = (keys[None] <= positions[0][:, None])[None, None]
        hidden, self.past = self.net.text(x[None], positions, mask, self.past)
        self.length += count
        return hidden[0]

    def feed_tokens(self, ids: list[int]) -> Tensor:
        """Append token ids."""
        return self.feed(self.net.text.wte[torch.tensor(ids)])


def speak(decoder: Decoder, prompt: list[int], limit: int = MAX_TEXT, stop: bool = True) -> Spoken:
    """Answer a prompt in words; no id is suppressed (id 3 is never near the top)."""
    net, spoken = decoder.net, Spoken([], [], [])
    hidden = decoder.feed_tokens(prompt)[-1]
    while True:
        logits = net.text.logits(hidden)
        token = int(logits.argmax())
        if stop:
            spoken.logits.append(logits)
        if (stop and token == EOS) or len(spoken.tokens) == limit:
            return spoken
        if not stop:
            spoken.logits.append(logits)
        spoken.tokens.append(token)
        hidden = decoder.feed_tokens([token])[-1]
        spoken.hidden.append(hidden)


def find(decoder: Decoder, prompt: list[int], skill: str, most: int = 50) -> Found:
    """Decode the objects of a detect or point prompt."""
    net, found = decoder.net, Found()
    region = net.region
    hidden = decoder.feed_tokens(prompt)[-1]
    while len(found.bins) < most:
        pair = net.text.logits(hidden)[[EOS, COORD]]
        found.decisions.append(pair.tolist())
        found.margins.append(abs(float(pair[0] - pair[1])))
        if pair[0] > pair[1]:
            found.token_ids.append(EOS)
            break
        bins, values = [], []
        for _ in range(2):
            logits = region.coord_decoder(hidden)
            found.hidden.append(hidden)
            found.margins.append(margin(logits))
            found.token_ids.append(COORD)
            bins.append(int(logits.argmax()))
            values.append(bins[-1] / region.bins)
            hidden = decoder.feed(region.encode_coord(torch.tensor([values[-1:]])))[-1]
        if skill == "detect":
            hidden = _find_size(decoder, found, hidden, bins, values)
        found.bins.append(bins)
        found.values.append(values)
        found.objects.append(box_of(values) if skill == "detect" else values)
    return found


def _find_size(decoder: Decoder, found: Found, hidden: Tensor, bins: list[int], values: list[float]) -> Tensor:
    region = decoder.net.region
    logits = region.sizes(hidden)
    found.hidden.append(hidden)
    found.margins += [margin(row) for row in logits]
    found.token_ids.append(SIZE)
    chosen = logits.argmax(-1)
    size = region.bin_to_size(chosen)
    bins += chosen.tolist()
    values += size.tolist()
    return decoder.feed(region.encode_size(size[None]))[-1]


def box_of(values: list[float]) -> list[float]:
    """Turn centre and size into corners."""
    x, y, width, height = values
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def without_image(net: Shapes, prompt: list[int], limit: int) -> tuple[Tensor, Spoken]:
    """Run a prompt behind BOS alone; return hidden states of the prompt and the answer."""
    hidden = Decoder(net, None).feed_tokens([BOS, *prompt])
    return hidden, speak(Decoder(net, None), [BOS, *prompt], limit)
