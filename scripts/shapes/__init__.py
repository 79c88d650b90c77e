"""A small, really seeing Moondream-2-form model: scenes, texts, network and training."""
