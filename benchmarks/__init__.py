"""Comparisons with plain jax and PyTorch: `python -m benchmarks.step`, `benchmarks.start`, `benchmarks.input`."""
