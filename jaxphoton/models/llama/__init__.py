"""The text decoder of Llama, which families share: settings, parameters, network, tensor names. No family by itself."""
