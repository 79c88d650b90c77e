"""What recorded cases of a Moondream must show; `cases` lists them. Not part of the model: they stand on the oracle."""
