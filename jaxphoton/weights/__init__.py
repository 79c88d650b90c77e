"""Weights: from published checkpoints to the parameter tree of a family, and back to disk.

`mapped` is a memory-mapped file of tensors, `safetensors` and `torch_file` are its two formats, and `checkpoint`
finds the files of a model. The family says which tensor goes where (in the words of `jaxphoton.models.naming`), and
`load` puts all together leaf by leaf. `orbax` keeps converted checkpoints, `hub` finds a model's folder and tokenizer
by name; `adapters` reads and writes adapters. A checkpoint is checked as a whole from its headers before any weight
is read, and every fault is a `WeightsError`.
"""
