"""The families of models, each in a folder of its own."""
