"""Sampling of one entry a row: masked, tempered, top-p, with noise that depends on the request alone."""

from kernels_pallas.masked_sample.api import masked_sample as masked_sample
