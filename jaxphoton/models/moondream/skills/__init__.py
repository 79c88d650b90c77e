"""What can be asked of a Moondream: prompts in, grammar while generating, results out. Never imports jax."""
