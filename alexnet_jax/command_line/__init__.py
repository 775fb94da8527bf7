"""The command line: which experiment or sweep, which mode, and every option, typed and checked before jax is imported.

spelling    unknown options and their suggestions; lists, yes and no in every usual spelling
options     the options with their help, and the parser
requests    from the parsed options to a checked request, which a mode runs
"""

from alexnet_jax.command_line.requests import read

__all__ = ["read"]
