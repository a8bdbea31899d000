# SPDX-License-Identifier: MPL-2.0
"""Launches the compiled kernels on a GPU, as the plugin does: by the driver alone, from text and table.

`launch` takes what `emulator.launch` takes, so that `check.py --device` proves on the device what it
proves on the CPU. Needs nothing but a driver and numpy.
"""

import ctypes
import json
from pathlib import Path

import numpy as np

import contract

_SHARED_LIMIT = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_C = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "f32": ctypes.c_float, "ptr": ctypes.c_uint64, "scratch": ctypes.c_uint64}


class NoDevice(Exception):
    pass


class Device:
    """The first GPU, in its primary context: the one that PyTorch uses too."""

    def __init__(self):
        try:
            self._lib = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise NoDevice("no driver") from error
        if self._lib.cuInit(0) != 0:
            raise NoDevice("a driver and no GPU")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._do("cuDeviceGet", ctypes.byref(device), 0)
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._do("cuCtxSetCurrent", context)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._do("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
        self._do("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
        self.capability = major.value * 10 + minor.value
        self._functions = {}

    def _do(self, name, *args):
        code = getattr(self._lib, name)(*args)
        if code != 0:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {code} {text.value}")

    def runs(self, arch):
        """Whether a variant for `arch` runs here."""
        return self.capability == 90 if arch == "90a" else self.capability >= int(arch)

    def function(self, entry, ptx):
        """The kernel in a PTX text."""
        if ptx not in self._functions:
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            self._do("cuModuleLoadData", ctypes.byref(module), ptx.encode())
            self._do("cuModuleGetFunction", ctypes.byref(function), module, entry["entry"].encode())
            if entry["shared"] > 48 * 1024:
                self._do("cuFuncSetAttribute", function, _SHARED_LIMIT, ctypes.c_int(entry["shared"]))
            self._functions[ptx] = function
        return self._functions[ptx]

    def start(self, entry, function, grid, values):
        """Launches on the default stream; `values` are addresses and numbers in the contract's order."""
        values = [*values, *[0] * entry["params"].count("scratch")]
        held = [_C[kind](value) for kind, value in zip(entry["params"], values, strict=True)]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(value) for value in held])
        block = 32 * entry["num_warps"]
        self._do("cuLaunchKernel", function, *map(ctypes.c_uint, (*grid, block, 1, 1, entry["shared"])), None, pointers, None)

    def synchronize(self):
        self._do("cuCtxSynchronize")

    def upload(self, data):
        address = ctypes.c_uint64()
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(data.nbytes, 16)))
        if data.nbytes:
            self._do("cuMemcpyHtoD_v2", address, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(data.nbytes))
        return address

    def download(self, address, data):
        if data.nbytes:
            self._do("cuMemcpyDtoH_v2", data.ctypes.data_as(ctypes.c_void_p), address, ctypes.c_size_t(data.nbytes))
        self._do("cuMemFree_v2", address)


class Kernels:
    """A folder with table.json and ptx/, on a device."""

    def __init__(self, folder):
        self.device = Device()
        self._folder = Path(folder)
        self._table = json.loads((self._folder / "table.json").read_text())

    def find(self, kernel, dtype, constants):
        """The entry with just these constants, for the newest GPU that this one is; or None."""
        wanted = dtype if any(type_ == "*T" for _, type_ in contract.ARGUMENTS[kernel]) else "f32"
        found = [
            entry
            for entry in self._table
            if (entry["kernel"], entry["dtype"], entry["constants"]) == (kernel, wanted, constants)
            and self.device.runs(entry["arch"])
        ]
        return max(found, key=lambda entry: int(entry["arch"].rstrip("a")), default=None)

    def launch(self, kernel, dtype, constants, grid, args, buffers):
        entry = self.find(kernel, dtype, constants)
        function = self.device.function(entry, (self._folder / "ptx" / entry["file"]).read_text())
        uploaded = [self.device.upload(data) for _, data in buffers]
        values = [
            number if isinstance(what, str) else uploaded[what].value + number * np.dtype(buffers[what][1].dtype).itemsize
            for what, number in args
        ]
        if all(grid):
            self.device.start(entry, function, grid, values)
            self.device.synchronize()
        for address, (_, data) in zip(uploaded, buffers):
            self.device.download(address, data)
