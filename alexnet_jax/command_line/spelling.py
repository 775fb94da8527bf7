"""Bring the words of a command line into the one form that the parser reads, and explain options that do not exist.

Lists may be separated by commas or spaces (--optim.drops=5,8, --sweep.arms a b), booleans may be yes or no, and names may have
- for _.
"""

import difflib
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import experiments
from alexnet_jax.command_line.options import NAMED, OPTIONS
from alexnet_jax.errors import UsageError
from alexnet_jax.suggestions import question

BOOLEANS = {"yes": "True", "true": "True", "on": "True", "no": "False", "false": "False", "off": "False"}
"""{a boolean in lower case: its form for the parser}. 1 and 0 are refused, since they may be meant as numbers."""

FLAGS = ("overwrite", "dry_run")
"""Booleans that are given without a value."""

TEXT_LISTS = ("sweep.arms", "restore_skip")
"""Lists of names, which the parser reads as one text with commas."""

OTHERS = ("help", "list")
"""Words that are no options of the parser."""


def normalized(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as --option=value, or --option and the values of a list.

    Raises UsageError for an option that does not exist, and for a mode or an experiment that is given without its option.
    """
    result: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            _check_word(word)
            result.append(word)
            continue
        given, equals, value = word[2:].partition("=")
        option = given.replace("-", "_")
        if option in OTHERS:
            result.append(word)
            continue
        if option not in OPTIONS:
            raise UsageError(_unknown(given, equals + value))
        values = [value] if equals else []
        while words and not words[0].startswith("--") and option not in FLAGS and (_is_list(option) or not values):
            values.append(words.pop(0))
        result += _written(option, values)
    return result


def given_options(arguments: Sequence[str]) -> frozenset[str]:
    """Return the names of the options in normalized arguments."""
    return frozenset(word[2:].partition("=")[0] for word in arguments if word.startswith("--"))


def _is_list(option: str) -> bool:
    return option in TEXT_LISTS or typing.get_origin(OPTIONS[option]) is tuple


def _written(option: str, values: list[str]) -> list[str]:
    """Return an option and its values as the parser reads them."""
    hint: Any = OPTIONS[option]
    if option in FLAGS:
        chosen = BOOLEANS.get(values[0].lower(), values[0]) if values else "True"
        if chosen not in ("True", "False"):
            raise UsageError(f"--{option}={chosen}: expected no value.")
        return [f"--{option}"] if chosen == "True" else []
    if not values:
        return [f"--{option}"]
    if option in TEXT_LISTS:
        return [f"--{option}={','.join(_split(values))}"]
    if _is_list(option):
        return [f"--{option}", *(_paths(values) if Path in typing.get_args(hint) else _split(values))]
    value, words = values[0], _words(hint)
    if words and value not in words:
        close = difflib.get_close_matches(value, words, 1)
        meant = f" Did you mean --{option}={close[0]}?" if close else ""
        raise UsageError(f"--{option}={value}: expected one of {', '.join(words)}.{meant}")
    return [f"--{option}={BOOLEANS.get(value.lower(), value) if hint is bool else value}"]


def _words(hint: Any) -> tuple[str, ...]:
    """Return the words that an option takes; none if it takes other values."""
    literals = [one for one in (hint, *typing.get_args(hint)) if typing.get_origin(one) is Literal]
    words = tuple(str(word) for one in literals for word in typing.get_args(one))
    return (*words, "None") if words and type(None) in typing.get_args(hint) else words


def _split(values: list[str]) -> list[str]:
    return [part for value in values for part in value.replace(",", " ").split()]


def _paths(values: list[str]) -> list[str]:
    """Split paths at commas, except those that exist with their comma. A leading dash would look like an option."""
    paths = [part for value in values for part in ([value] if os.path.exists(value) else value.split(","))]
    return [f"./{path}" if path.startswith("-") else path for path in paths]


def _check_word(word: str) -> None:
    if word in NAMED:
        raise UsageError(f"{word!r} stands alone: expected --mode={word}.")
    if word in experiments.FILES:
        raise UsageError(f"{word!r} stands alone: expected --exp={word}.")


def _unknown(option: str, rest: str) -> str:
    hint = question(option.replace("-", "_"), OPTIONS, "--") or "--help lists all options."
    return f"--{option}{rest}: no such option. {hint}"
