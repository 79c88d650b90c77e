"""What recorded cases of families around this decoder have in common. Not part of a model: they stand on the oracle."""
