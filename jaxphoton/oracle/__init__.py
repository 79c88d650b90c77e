"""The truth: one request at a time, a dense cache, sampling in NumPy. Tests compare the engine with it."""
