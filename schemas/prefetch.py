"""The processor's prefetch hint, for kernels that walk memory in an order that only their keys know.

Hints 16, 8 and 4 rows ahead (index, row, slab) halve the time of such a loop: its cache misses overlap.
"""

# ruff: noqa: ANN401 - what Numba hands to a code generator has no types

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]  # no stubs exist; this module is its typed adapter
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

_FOR_READING, _KEEP_IN_ALL_CACHES, _DATA = 0, 3, 1


def _prefetch(_typing: Any, array: Any, _index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        how = [ir.Constant(word, value) for value in (_FOR_READING, _KEEP_IN_ALL_CACHES, _DATA)]
        builder.call(hint, [address, *how])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


prefetch = cast("Callable[[NDArray[Any], Any], None]", intrinsic(_prefetch))
"""``prefetch(array, index)``: soon ``array[index]`` of a contiguous array will be read. For kernels only; any
index is safe, nothing is loaded that could fault."""
