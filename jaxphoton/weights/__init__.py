"""Weights: from published checkpoints to the parameter tree of `jaxphoton.models.moondream.params`, and back to disk.

`mapped` is a memory-mapped file of tensors, `safetensors` and `torch_file` are its two formats, and `checkpoint` finds
the files of a model. `names` brings the naming schemes to one, `mapping` says as data which tensor goes where, `load`
puts all together leaf by leaf, `float8` brings quantised experts to another type. `orbax` keeps converted checkpoints,
`hub` finds a model's folder and tokenizer by name. A checkpoint is checked as a whole from its headers before any
weight is read, and every fault is a `WeightsError`. May be imported by `api`, `oracle` and `cli`; imports only
`model.params` and `config`.
"""
