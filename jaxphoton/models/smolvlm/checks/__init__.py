"""What recorded cases of a SmolVLM2 must show; `cases` lists them. Not part of the model: they stand on the oracle."""
