"""Several processes of one run: which one this is, starting them, what they agree on, signals and devices."""
