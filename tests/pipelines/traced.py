#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Runs a script as it is started by its name, and ends GStreamer behind it, so that GST_TRACERS=leaks tells what
is alive when nothing of the script is any more.

    tests/pipelines/traced.py SCRIPT [ARGUMENT ...]
"""

import gc
import pathlib
import runpy
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402


def run(script):
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return end.code
    return 0


sys.argv = sys.argv[1:]
sys.path[0] = str(pathlib.Path(sys.argv[0]).parent)
status = run(sys.argv[0])
gc.collect()
Gst.deinit()
sys.exit(status)
