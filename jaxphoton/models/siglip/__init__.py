"""The vision encoder SigLIP, which families share: settings, parameters, network, tensor names. No family by itself."""
