#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Watches a camera that comes and goes: when it fails, ends or falls silent, only the source is built anew,
and streamkvqa goes on with the memory that it has.

    pipelines/reconnect.py rtsp://camera/stream [QUESTION [SECONDS [MODEL]]]      a question every 5 s

Prints each answer, and what happens to the camera. Ctrl-C ends.
"""

import pathlib
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = "rtspsrc name=source protocols=tcp latency=200 tcp-timeout=3000000 ! decodebin name=decoder"
# Seconds before the next try: short at first, longer while nobody answers.
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0


class Watch:
    def __init__(self, url, question, interval, model):
        self.url = url
        self.pipeline = Gst.parse_launch("streamkvqa name=qa ! fakesink sync=false async=false")
        # A source may have a clock of its own, which would go with it.
        self.pipeline.use_clock(Gst.SystemClock.obtain())
        self.qa = self.pipeline.get_by_name("qa")
        self.qa.set_property("model-path", model)
        self.qa.set_property("question", question)
        self.qa.set_property("question-interval", int(interval * Gst.SECOND))
        self.source = None
        self.wait = FIRST_WAIT
        self.loop = GLib.MainLoop()
        bus = self.pipeline.get_bus()
        bus.add_watch(GLib.PRIORITY_DEFAULT, self.on_message)

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        self.connect()
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.loop.quit)
        self.loop.run()
        stats = self.qa.get_property("stats")
        print(f"{stats['units'] + stats['open-frames']} pictures are remembered, "
              f"{stats['dropped']} came too fast", flush=True)
        self.pipeline.get_bus().remove_watch()
        self.pipeline.set_state(Gst.State.NULL)
        if self.source is not None:
            self.pipeline.remove(self.source)
            self.source = None

    def connect(self):
        self.source = Gst.parse_bin_from_description(SOURCE, False)
        # It goes to its state by itself. Else the pipeline would be taken back with it, and a source that fails
        # while it connects would leave it paused.
        self.source.set_property("async-handling", True)
        self.source.get_by_name("source").set_property("location", self.url)
        self.source.get_by_name("decoder").connect("pad-added", self.on_pad)
        self.pipeline.add(self.source)
        # As asked for, not as the pipeline happens to be while it takes leave of the last source.
        self.source.set_state(Gst.State.PLAYING)
        return GLib.SOURCE_REMOVE

    def on_pad(self, decoder, pad):
        # Asked for here: a source that its own signal holds would never go.
        source = decoder.get_parent()
        sink = self.qa.get_static_pad("sink")
        if source is not self.source or not pad.query_caps(None).to_string().startswith("video/"):
            return
        # The end of this connection is not the end of the stream.
        pad.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self.hold_back_end)
        ghost = Gst.GhostPad.new("src", pad)
        ghost.set_active(True)
        source.add_pad(ghost)
        if sink.is_linked():
            sink.get_peer().unlink(sink)
        ghost.link(sink)
        self.wait = FIRST_WAIT
        print("connected", flush=True)

    def hold_back_end(self, _pad, info):
        if info.get_event().type == Gst.EventType.EOS:
            GLib.idle_add(self.reconnect, self.source, "the camera has ended its stream")
            return Gst.PadProbeReturn.DROP
        return Gst.PadProbeReturn.OK

    def reconnect(self, source, why):
        """Once for each source, however many of its elements complain."""
        if source is None or source is not self.source:
            return GLib.SOURCE_REMOVE
        print(f"disconnected: {why}; the next try is in {self.wait:g} s", flush=True)
        self.source = None
        source.set_state(Gst.State.NULL)
        self.pipeline.remove(source)
        GLib.timeout_add(int(1000 * self.wait), self.connect)
        self.wait = min(2 * self.wait, LONGEST_WAIT)
        return GLib.SOURCE_REMOVE

    def is_of_source(self, element):
        while element is not None:
            if element is self.source:
                return True
            element = element.get_parent()
        return False

    def on_message(self, _bus, message):
        structure = message.get_structure()
        if message.type == Gst.MessageType.ERROR:
            why = message.parse_error()[0].message
            if self.source is None or self.is_of_source(message.src):
                self.reconnect(self.source, why)
            elif self.qa is message.src:
                print("error:", why, file=sys.stderr)
                sys.exit(1)
        elif message.has_name("streamkvqa/video") and structure["status"] == "stopped":
            self.reconnect(self.source, "no frame comes")
        elif message.has_name("streamkvqa/answer") and structure["status"] == "ok":
            print(f"{structure['asked-at'] / Gst.SECOND:7.1f} s  {structure['question']}  "
                  f"{structure['answer']}", flush=True)
        return GLib.SOURCE_CONTINUE


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    Gst.init(None)
    arguments = dict(enumerate(sys.argv))
    Watch(
        arguments[1],
        arguments.get(2, "what is here now?"),
        float(arguments.get(3, 5.0)),
        arguments.get(4, str(ROOT / "models" / "everyday")),
    ).run()
