"""JoyCaption: SigLIP, an MLP and Llama 3.1, in the LLaVA form of Hugging Face."""
