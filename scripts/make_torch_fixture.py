"""Write tests/weights/data/tensors.pt with `torch.save`: python scripts/make_torch_fixture.py PATH.

It holds every kind of tensor that jaxphoton reads there; `tests/weights/test_torch_file.py` knows the values.
"""

import sys
from collections import OrderedDict

import torch


def tensors() -> OrderedDict[str, torch.Tensor]:
    """A state dict, which torch saves with attributes of its own, and views of every layout."""
    state = torch.nn.LayerNorm(3).to(torch.bfloat16).state_dict()
    counting = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    types = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
    types += ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool")
    for name in types:
        state[name] = counting.to(getattr(torch, name))
    state["parameter"] = torch.nn.Parameter(counting / 2)
    state["row of float32"] = state["float32"][2]
    state["columns of float32"] = state["float32"][:, 1:5:2]
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        state[f"transposed {name}"] = state[name].T
    state["expanded"] = torch.tensor([1.0, 2.0])[:, None].expand(2, 3)
    state["scalar"] = torch.tensor(0.375)
    state["empty"] = torch.zeros(0, 3)
    return state


if __name__ == "__main__":
    torch.save(tensors(), sys.argv[1])
