"""Weights: from published checkpoints to the parameter tree of `jaxphoton.model.params`, and back to disk.

`checkpoint` reads safetensors lazily, `mapping` says as data which tensor goes where, `load` puts the two together
leaf by leaf, `orbax` keeps converted checkpoints, `hub` finds a model's folder and tokenizer by name. A checkpoint is
checked as a whole from its headers before any weight is read, and every fault is a `WeightsError`. May be imported by
`api`, `oracle` and `cli`; imports only `model.params` and `config`.
"""
