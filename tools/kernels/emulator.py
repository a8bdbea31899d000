# SPDX-License-Identifier: MPL-2.0
"""Runs a kernel on the CPU, over plain numpy buffers, in Triton's interpreter.

Every address is looked up: a load or store outside the buffers that the launch was given is an error
here, where a GPU would read on. The interpreter computes bf16 wrongly; buffers of bf16 are widened to
f32 instead, and what was written is rounded to bf16 at the end.
"""

import os
import warnings

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import triton.language as tl
import triton.runtime.interpreter as interpreter

import contract

STORED = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16, "i32": np.int32, "i64": np.int64, "u32": np.uint32}
_POINTED = {"f32": tl.float32, "f16": tl.float16, "bf16": tl.float32, "i32": tl.int32, "i64": tl.int64, "u32": tl.uint32}
_SCALARS = {"i32": (np.int32, tl.int32), "i64": (np.int64, tl.int64), "f32": (np.float32, tl.float32)}


def widen(bf16):
    """f32 of the bit patterns of bf16."""
    return (bf16.astype(np.uint32) << 16).view(np.float32)


def round_bf16(x):
    """The bit patterns of the bf16 nearest to f32 numbers, ties to even."""
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


class Strayed(Exception):
    """A kernel reached beyond the buffers of its launch."""


class _Memory:
    """Stands in for the interpreter's access to memory; lets by what lies within known buffers."""

    def __init__(self, inner):
        self._inner = inner
        self.ranges = []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def _hold(self, what, addresses, mask, size):
        addresses = np.broadcast_to(addresses, np.shape(mask))[np.asarray(mask, bool)]
        if addresses.size == 0:
            return
        least, most = int(addresses.min()), int(addresses.max()) + size
        if any(begin <= least and most <= end for begin, end in self.ranges):
            return
        inside = np.zeros(addresses.shape, bool)
        for begin, end in self.ranges:
            inside |= (addresses >= begin) & (addresses + size <= end)
        if not inside.all():
            raise Strayed(f"{what} of {size} bytes outside every buffer, {int((~inside).sum())} of {inside.size} elements")

    def load(self, pointers, mask, other, dtype):
        self._hold("load", pointers, mask, np.dtype(dtype).itemsize)
        return self._inner.load(pointers, mask, other, dtype)

    def store(self, pointers, value, mask):
        self._hold("store", pointers, mask, value.dtype.itemsize)
        return self._inner.store(pointers, value, mask)

    def atomic_rmw(self, op, pointers, value, mask, order):
        self._hold("atomic", pointers, mask, value.dtype.itemsize)
        return self._inner.atomic_rmw(op, pointers, value, mask, order)


warnings.filterwarnings("ignore", "Conversion of an array with ndim > 0 to a scalar", DeprecationWarning)
_memory = _Memory(interpreter._interpreter)
interpreter._interpreter = _memory


def launch(kernel, dtype, constants, grid, args, buffers):
    """Runs `kernel` over `buffers`, a list of (element type, numpy array), written in place.

    `args` are, in the contract's order, (buffer, offset) or ("i32" | "i64" | "f32", number).
    """
    arguments = contract.ARGUMENTS[kernel]
    if len(args) != len(arguments):
        raise TypeError(f"{kernel} takes {len(arguments)} arguments, not {len(args)}")
    function = contract.function(kernel)
    missing = set(function.arg_names[len(arguments) :]) ^ set(constants)
    if missing:
        raise TypeError(f"{kernel}: constants {sorted(missing)} missing or unknown")
    wide = [widen(data) if type_ == "bf16" else data for type_, data in buffers]
    values = []
    for (name, type_), (what, number) in zip(arguments, args):
        if isinstance(what, str):
            if type_ != what:
                raise TypeError(f"{kernel}: {name} is {type_}, not {what}")
            if contract.divisible(name, type_) > 1 and number % contract.divisible(name, type_):
                raise TypeError(f"{kernel}: {name} is {number}, no multiple of {contract.divisible(name, type_)}")
            numpy, triton = _SCALARS[what]
            values.append(tl.tensor(interpreter.TensorHandle(np.array([number], numpy), triton), triton))
            continue
        held, data = buffers[what][0], wide[what]
        if type_ != f"*{held}" and not (type_ == "*T" and held == dtype):
            raise TypeError(f"{kernel}: {name} is {type_} of {dtype}, not *{held}")
        if not 0 <= number <= data.size:
            raise Strayed(f"{kernel}: {name} begins at {number} of {data.size}")
        step = contract.divisible(name, type_)
        if number * STORED[held]().itemsize % step:
            raise TypeError(f"{kernel}: {name} begins at element {number}, no multiple of {step} bytes")
        pointer = tl.pointer_type(_POINTED[held])
        address = data.ctypes.data + number * data.itemsize
        values.append(tl.tensor(interpreter.TensorHandle(np.array([address], np.uint64), pointer), pointer))
    _memory.ranges = [(data.ctypes.data, data.ctypes.data + data.nbytes) for data in wide]
    try:
        with np.errstate(all="ignore"):
            function[tuple(grid)](*values, **constants)
    except interpreter.InterpreterError as error:
        raise error.__cause__ or error
    finally:
        _memory.ranges = []
    for (type_, data), computed in zip(buffers, wide):
        if type_ == "bf16":
            data[...] = round_bf16(computed)
