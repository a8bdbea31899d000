# SPDX-License-Identifier: MPL-2.0
"""What a small Qwen2.5-VL needs beside the shared parts: two frames a unit, windows, positions on three axes."""
