"""Kernels, predictions, neighbours and features of a trained network, after section 6.1 of the paper."""
