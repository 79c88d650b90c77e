"""Moondream 2 and 3: settings, parameters, networks, pictures, prompts and skills."""
