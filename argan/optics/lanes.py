"""Four channels of an image at once, as one vector of the processor: the two inner operations of the gather.

numba's loops over pixels become vector instructions where neighbouring pixels lie side by side, and taps do not. Channels do,
when a pixel's four are stored together; numba has no word for that, so these two say it to LLVM. For use in compiled code alone:
neither looks whether an index is inside. Array indices are unsigned 64 bit, weights are of the arrays' type.

numba keeps compiled code by the date of the file that calls: after a change here delete argan/__pycache__.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 4
_INDEX = ir.IntType(32)
_FUSED = ("contract",)  # a product may be fused with a sum; nothing else is reordered


class _Builder:
    """LLVM's builder, saying vectors of LANES numbers."""

    def __init__(self, context: Any, builder: Any, array: Any) -> None:
        self.context, self.builder = context, builder
        self.vector = ir.VectorType(context.get_data_type(array.dtype), LANES)
        self.align = array.dtype.bitwidth // 8  # of one number: a pixel may begin anywhere

    def at(self, array: Any, value: Any, index: Any) -> Any:
        data = self.context.make_array(array)(self.context, self.builder, value=value).data
        return self.builder.bitcast(self.builder.gep(data, [index]), self.vector.as_pointer())

    def load(self, pointer: Any) -> Any:
        loaded = self.builder.load(pointer)
        loaded.align = self.align
        return loaded

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer).align = self.align

    def all(self, number: Any) -> Any:
        """The number in every lane."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, number, _INDEX(0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))

    def sum(self, value: Any) -> Any:
        """Over the lanes, always in the same order."""
        lanes = [self.builder.extract_element(value, _INDEX(i)) for i in range(LANES)]
        return self.builder.fadd(self.builder.fadd(lanes[0], lanes[1]), self.builder.fadd(lanes[2], lanes[3]))

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=_FUSED)

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b, flags=_FUSED)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b, flags=_FUSED)

    def taps(self, a: Any, next_x: Any, next_y: Any) -> list[Any]:
        """Upper left, upper right, lower left, lower right."""
        below = self.builder.add(a, next_y)
        return [a, self.builder.add(a, next_x), below, self.builder.add(below, next_x)]


def _look_up(typing: Any, out: Any, k: Any, plane: Any, a: Any, next_x: Any, next_y: Any, right: Any, down: Any) -> Any:
    """out[k : k + 4] += the plane's pixel, bilinear: `a` its upper left tap, right and down the parts towards its neighbours."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        out, k, plane, a, next_x, next_y, right, down = values
        b = _Builder(context, builder, signature.args[0])
        corner = [b.load(b.at(signature.args[2], plane, i)) for i in b.taps(a, next_x, next_y)]
        right, down = b.all(right), b.all(down)
        upper = b.add(corner[0], b.mul(right, b.sub(corner[1], corner[0])))
        lower = b.add(corner[2], b.mul(right, b.sub(corner[3], corner[2])))
        to = b.at(signature.args[0], out, k)
        b.store(b.add(b.load(to), b.add(upper, b.mul(down, b.sub(lower, upper)))), to)
        return context.get_dummy_value()

    return types.void(out, k, plane, a, next_x, next_y, right, down), generate


def _look_back(
    typing: Any, d_plane: Any, plane: Any, values: Any, k: Any, a: Any, next_x: Any, next_y: Any,
    right: Any, down: Any, free_x: Any, free_y: Any,
) -> Any:  # fmt: skip
    """The gradients of `look_up`: values[k : k + 4] go to the taps of d_plane by their shares; returned is the sum over the
    channels of values times the derivative with respect to the shift, free_x and free_y being d position / d shift."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        d_plane, plane, values, k, a, next_x, next_y, *parts = arguments
        b = _Builder(context, builder, signature.args[0])
        right, down, free_x, free_y = (b.all(part) for part in parts)
        value = b.load(b.at(signature.args[2], values, k))
        taps = b.taps(a, next_x, next_y)
        corner = [b.load(b.at(signature.args[1], plane, i)) for i in taps]
        upper, lower, left = b.sub(corner[1], corner[0]), b.sub(corner[3], corner[2]), b.sub(corner[2], corner[0])
        twist = b.sub(lower, upper)
        along_x, along_y = b.add(upper, b.mul(down, twist)), b.add(left, b.mul(right, twist))
        slope = b.sum(b.mul(value, b.add(b.mul(free_x, along_x), b.mul(free_y, along_y))))
        below = b.mul(value, down)
        above = b.sub(value, below)
        above_right, below_right = b.mul(above, right), b.mul(below, right)
        shares = (b.sub(above, above_right), above_right, b.sub(below, below_right), below_right)
        for i, share in zip(taps, shares, strict=True):  # one after the other: at the border two taps may be the same
            to = b.at(signature.args[0], d_plane, i)
            b.store(b.add(b.load(to), share), to)
        return slope

    return right(d_plane, plane, values, k, a, next_x, next_y, right, down, free_x, free_y), generate


look_up: Any = intrinsic(_look_up)
look_back: Any = intrinsic(_look_back)
