"""What answers the images of a run: a model in this process (`inprocess`), or several engine processes (`pool`).

`pool.Replicas` has engine processes, one a GPU; a `supervisor` keeps each, `assignments` knows which has what and what
becomes of those whose process died. `process` is this side of such a process, `child` what it runs, `protocol` what
is said between; `gpus` finds the GPUs.
"""
