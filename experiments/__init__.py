"""One file per experiment, each with an EXPERIMENT; the first line of its docstring is what `--list` prints."""
