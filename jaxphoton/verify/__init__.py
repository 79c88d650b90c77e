"""Proof on this machine: golden inputs and outputs against this build.

A golden directory holds `images.safetensors` and a folder a model with `cases.safetensors`, `cases.json`,
`config.json` and `model*.safetensors`. A case is what stands before the first dot of an array's name. Everything
in the files is checked: an unknown case, or an array that no check has read, is a failure.
"""
