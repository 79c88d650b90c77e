"""Scenes of coloured objects, as the packaged model was trained on: drawn, described, and scored. No jax."""
