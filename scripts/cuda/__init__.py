"""The parts of scripts/cuda_check.py: what the programs and kernels become on NVIDIA GPUs, read without a GPU.

XLA compiles for a GPU that is not there if it is told the chip's figures (`targets/`) and finds jax's CUDA plugin,
which is kept out of every environment (`plugin`). Each job (`jobs`) compiles in a process of its own (`worker`) and
comes back as evidence: the thunks that would run (`thunks`), the memory they would use (`buffers`). `checks` judges it.
Nothing runs and nothing is autotuned: the figures are counts and bytes, never times.
"""
