"""What the programs cost, measured against plain jax and PyTorch: `python -m benchmarks.step`, `python -m benchmarks.start`."""
