# SPDX-License-Identifier: MPL-2.0
"""The emulator behind a pipe: the Rust tests launch kernels through it as they would on a device.

Little endian. A request is a u32 length, that many bytes of JSON

    {"kernel": "attend", "dtype": "f32", "constants": {"BM": 32, ...}, "grid": [x, y, z],
     "args": [{"buffer": index, "offset": elements} | {"i32": n} | {"i64": n} | {"f32": x}, ...],
     "buffers": [{"dtype": "f32", "elements": n, "written": true}, ...]}

and the bytes of all buffers in order. The answer is a u32: 0, then the bytes of the written buffers
in order; or the length of a message, and the message.
"""

import json
import struct
import sys

import numpy as np

import emulator


def serve(source, sink):
    while True:
        head = source.read(4)
        if not head:
            return
        request = json.loads(exactly(source, struct.unpack("<I", head)[0]))
        buffers = []
        for buffer in request["buffers"]:
            stored = np.dtype(emulator.STORED[buffer["dtype"]])
            data = exactly(source, buffer["elements"] * stored.itemsize)
            buffers.append((buffer["dtype"], np.frombuffer(data, stored).copy()))
        try:
            run(request, buffers)
        except Exception as error:
            message = f"{type(error).__name__}: {error}".encode()
            sink.write(struct.pack("<I", len(message)) + message)
        else:
            sink.write(struct.pack("<I", 0))
            for (_, data), buffer in zip(buffers, request["buffers"]):
                if buffer["written"]:
                    sink.write(data.tobytes())
        sink.flush()


def exactly(source, size):
    data = source.read(size)
    if len(data) != size:
        raise SystemExit("the request ends early")
    return data


def run(request, buffers):
    args = []
    for arg in request["args"]:
        if "buffer" in arg:
            args.append((arg["buffer"], arg.get("offset", 0)))
        else:
            ((kind, number),) = arg.items()
            args.append((kind, number))
    before = [None if b["written"] else data.copy() for (_, data), b in zip(buffers, request["buffers"])]
    emulator.launch(request["kernel"], request["dtype"], request["constants"], request["grid"], args, buffers)
    for at, ((_, data), was) in enumerate(zip(buffers, before)):
        if was is not None and data.tobytes() != was.tobytes():
            raise RuntimeError(f"buffer {at} was written, and is not marked so")


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
