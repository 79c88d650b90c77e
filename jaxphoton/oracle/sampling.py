"""Sampling in plain NumPy: the definition that device programs are compared with, simple enough to be believed."""

from __future__ import annotations

import numpy as np

from jaxphoton.requests.settings import Settings

TOKEN = 0  # the stream of random words of ids; a family's readout has others, see `gumbel`

GREEDY_BELOW = 1e-6  # temperatures up to here mean argmax


def threefry2x32(key: tuple[int, int], first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Counter words `first` and `second` are uint32 arrays of one shape; returns two random uint32 arrays.
    """
    keys = [np.uint32(key[0]), np.uint32(key[1])]
    keys.append(keys[0] ^ keys[1] ^ np.uint32(0x1BD11BDA))
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    with np.errstate(over="ignore"):
        a, b = first + keys[0], second + keys[1]
        for block in range(5):
            for rotation in rotations[block % 2]:
                a = a + b
                b = (b << np.uint32(rotation)) | (b >> np.uint32(32 - rotation))
                b = a ^ b
            a = a + keys[(block + 1) % 3]
            b = b + keys[(block + 2) % 3] + np.uint32(block + 1)
    return a, b


def gumbel(seed: int, index: int, stream: int, columns: int) -> np.ndarray:
    """Standard Gumbel noise, float32 [columns], for generated token number `index` of a request.

    The words are the first outputs of threefry2x32 with key (seed, 0) and counter (8 index + stream, column):
    they depend on the request alone, never on the batch.
    """
    column = np.arange(columns, dtype=np.uint32)
    words, _ = threefry2x32((seed, 0), np.full_like(column, 8 * index + stream), column)
    # 23 bits and a half: strictly inside (0, 1) and exact in float32.
    uniform = ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)
    return -np.log(-np.log(uniform))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64 log-probabilities of logits [V]; -inf entries stay -inf."""
    shifted = logits.astype(np.float64) - np.max(logits)
    return shifted - np.log(np.sum(np.exp(shifted)))


def top_p_keep(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """bool [V]: an entry goes when the mass strictly before it, in descending order, exceeds top_p.

    So the entry that crosses the threshold is kept; equal probabilities rank by index.
    """
    order = np.argsort(-probabilities, kind="stable")
    sorted_probabilities = probabilities[order]
    before = np.cumsum(sorted_probabilities) - sorted_probabilities
    keep = np.zeros(len(probabilities), bool)
    keep[order] = before <= top_p
    return keep


def perturbed_scores(
    logits: np.ndarray, temperature: float, top_p: float, seed: int, index: int, stream: int
) -> np.ndarray:
    """float64 [V]: the scores whose argmax is the choice; -inf for entries that top-p drops.

    Greedy: the logits. Else log-probabilities at `temperature` plus Gumbel noise, so that the argmax is a draw.
    """
    if temperature <= GREEDY_BELOW:
        return logits.astype(np.float64)
    logprobs = log_softmax(logits / temperature)
    keep = top_p_keep(np.exp(logprobs), top_p)
    return np.where(keep, logprobs + gumbel(seed, index, stream, len(logits)), -np.inf)


def draw(logits: np.ndarray, settings: Settings, index: int, stream: int) -> tuple[int, float]:
    """The chosen entry and its log-probability at temperature 1."""
    seed = settings.seed or 0
    scores = perturbed_scores(logits, settings.temperature, settings.top_p, seed, index, stream)
    chosen = int(np.argmax(scores))
    return chosen, float(log_softmax(logits)[chosen])
