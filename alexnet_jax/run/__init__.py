"""The folder of one run: checkpoints, metrics and the report."""
