"""Eight bytes at a time, from any address: the three machine instructions that Numba has no name for.

Plain indexing would check each index for a negative value and could not read across alignment. The caller
sees to the bounds: eight bytes from ``index`` on must belong to the array (hence
schemas.events.BUFFER_PADDING).
"""

# ruff: noqa: ANN401 - what Numba hands to a code generator has no types

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # no stubs exist; this module is its typed adapter
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

_WORD = ir.IntType(64)


def _address(context: Any, builder: Any, signature: Any, arguments: Any, bits: int) -> Any:
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(bits).as_pointer())


def _word_at(_typing: Any, array: Any, _index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments, 64), align=1)

    return types.uint64(array, types.int64), generate


def _byte_at(_typing: Any, array: Any, _index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.load(_address(context, builder, signature, arguments, 8)), _WORD)

    return types.int64(array, types.int64), generate


def _trailing_zeros(_typing: Any, _word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _high_product(_typing: Any, _left: Any, _right: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _WORD)

    return types.uint64(types.uint64, types.uint64), generate


word_at = cast("Callable[[NDArray[np.uint8], int], np.uint64]", intrinsic(_word_at))
"""Little-endian word of the bytes [index, index + 8)."""

byte_at = cast("Callable[[NDArray[np.uint8], int], int]", intrinsic(_byte_at))
"""One byte as a signed integer, so that sums with it stay integers."""

trailing_zeros = cast("Callable[[np.uint64], int]", intrinsic(_trailing_zeros))
"""Zero bits below the lowest one bit; undefined for 0."""

high_product = cast("Callable[[np.uint64, np.uint64], np.uint64]", intrinsic(_high_product))
"""Upper 64 of the 128 bits of a product."""
