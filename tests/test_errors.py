"""Check the remedies in messages: a full disk is mentioned only if a disk is full."""

import errno
import os

import pytest

from alexnet_jax.errors import remedy


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_recognized_behind_other_errors(number):
    full = OSError(number, os.strerror(number))
    wrapped = ValueError(f"RESOURCE_EXHAUSTED: [OS error {number}: {os.strerror(number)}]")
    chained = RuntimeError("a library's own error")
    chained.__cause__ = full
    for problem in (full, wrapped, chained):
        assert remedy(problem, "otherwise") == "The disk is full: make room."


def test_any_other_error_gets_the_other_remedy():
    for problem in (OSError(errno.EACCES, "Permission denied"), ValueError("surrogates not allowed")):
        assert remedy(problem, "otherwise") == "otherwise"
