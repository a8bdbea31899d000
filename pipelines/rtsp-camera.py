#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""A stand-in for an RTSP camera: serves the clip of a street on loopback, to each client from its
beginning.

    pipelines/rtsp-camera.py [PORT [CLIP.webm]]        rtsp://127.0.0.1:PORT/camera, 8554 if left out

Port 0 takes a free one. The address is printed as soon as the camera can be reached.
"""

import pathlib
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

CLIP = pathlib.Path(__file__).resolve().parent.parent / "examples/media/everyday.webm"
PICTURE = '( filesrc location="{}" ! matroskademux ! rtpvp8pay name=pay0 )'


def main():
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1] if len(sys.argv) > 1 else "8554")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PICTURE.format(sys.argv[2] if len(sys.argv) > 2 else CLIP))
    # To each its own: GStreamer 1.22's server may fall over one of its own assertions where several
    # clients begin to play the same one at once.
    factory.set_shared(False)
    server.get_mount_points().add_factory("/camera", factory)
    if not server.attach(None):
        sys.exit("error: cannot listen on that port")
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/camera", flush=True)
    try:
        GLib.MainLoop().run()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
