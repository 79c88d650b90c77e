"""Host side of text: tokenizer, prompt templates as token ids, and streaming of decoded text.

Never imports jax. `transformers` is imported by `tokenizer.py` alone, and only when a tokenizer is loaded.
"""
