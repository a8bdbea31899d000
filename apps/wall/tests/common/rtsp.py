#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""A stand-in for an RTSP camera, for tests: rtsp.py PORT [USER PASSWORD]. Port 0 takes a free one. The address
is printed as soon as it can be reached."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PICTURE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=10/1 ! "
    "vp8enc deadline=1 keyframe-max-dist=10 ! rtpvp8pay name=pay0 )"
)

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(PICTURE)
factory.set_shared(True)
if len(sys.argv) > 2:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(sys.argv[2], sys.argv[3]), token)
    server.set_auth(auth)
    allowed = Gst.Structure.from_string(
        "user, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    )[0]
    factory.add_role_from_structure(allowed)
server.get_mount_points().add_factory("/camera", factory)
if not server.attach(None):
    sys.exit("error: cannot listen on that port")
print(f"127.0.0.1:{server.get_bound_port()}/camera", flush=True)
GLib.MainLoop().run()
