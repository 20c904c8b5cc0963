"""The one place where loops are compiled.

Numba is untyped for mypy, so this module is its typed adapter: :func:`kernel` keeps the signature that the
undecorated function declares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a plain loop: releases the GIL, cached on disk, no check of every division.

    The error model is numpy's because Python's tests each division and thereby stops vectorisation.
    """
    return cast("Function", numba.njit(cache=True, nogil=True, error_model="numpy")(function))
