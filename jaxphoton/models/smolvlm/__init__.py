"""SmolVLM2 (Idefics3 form): SigLIP on tiles and the whole picture, a pixel shuffle, and Llama."""
