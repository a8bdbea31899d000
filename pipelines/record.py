#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Records what an alert is about: a file for each, from its beginning to its end.

    pipelines/record.py [VIDEO [QUESTIONS.jsonl [MODEL]]]

VIDEO is a file or an address; a questions file says what is an alert (`when`). Writes TAG-SECONDS.webm into the
current folder. Ctrl-C ends; what is being recorded then is whole too.
"""

import pathlib
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEDIA = ROOT / "examples" / "media"
RECORDER = (
    "queue max-size-time=3000000000 max-size-buffers=0 max-size-bytes=0 ! videoconvert ! "
    "vp8enc deadline=1 cpu-used=-8 target-bitrate=1000000 ! webmmux ! filesink name=file async=false"
)


class Recorder:
    def __init__(self, video, questions, model):
        self.pipeline = Gst.parse_launch(
            "uridecodebin name=video ! streamkvqa name=qa ! tee name=tee ! queue ! fakesink sync=true"
        )
        uri = video if Gst.uri_is_valid(video) else Gst.filename_to_uri(video)
        self.pipeline.get_by_name("video").set_property("uri", uri)
        qa = self.pipeline.get_by_name("qa")
        qa.set_property("questions-file", questions)
        qa.set_property("model-path", model)
        # The end of one recording comes to the bus as well.
        self.pipeline.set_property("message-forward", True)
        self.recordings = {}
        self.loop = GLib.MainLoop()
        self.failed = None
        bus = self.pipeline.get_bus()
        bus.add_watch(GLib.PRIORITY_DEFAULT, self.on_message)

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        signals = [GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.finish)
                   for number in (signal.SIGINT, signal.SIGTERM)]
        self.loop.run()
        for source in signals:
            GLib.source_remove(source)
        self.pipeline.get_bus().remove_watch()
        self.pipeline.set_state(Gst.State.NULL)
        return self.failed

    def finish(self):
        """Ends what is being recorded, then everything."""
        self.pipeline.send_event(Gst.Event.new_eos())
        return GLib.SOURCE_CONTINUE

    def begin(self, alert):
        number = alert["id"]
        if number in self.recordings:
            return
        name = f"{alert['tag'] or number}-{alert['since'] // Gst.SECOND}.webm"
        recorder = Gst.parse_bin_from_description(RECORDER, True)
        recorder.get_by_name("file").set_property("location", name)
        self.pipeline.add(recorder)
        recorder.sync_state_with_parent()
        pad = self.pipeline.get_by_name("tee").request_pad_simple("src_%u")
        pad.link(recorder.get_static_pad("sink"))
        self.recordings[number] = (pad, name)
        print(f"{alert['tag']}: recording {name}", flush=True)

    def end(self, alert):
        recording = self.recordings.pop(alert["id"], None)
        if recording is None:
            return
        pad, name = recording

        def unlinked(pad, _info):
            # Not the recorder's own name for it: what a probe holds may stay.
            sink = pad.get_peer()
            pad.unlink(sink)
            # The file is closed where its end arrives: see on_message.
            sink.send_event(Gst.Event.new_eos())
            self.pipeline.get_by_name("tee").release_request_pad(pad)
            return Gst.PadProbeReturn.REMOVE

        pad.add_probe(Gst.PadProbeType.IDLE, unlinked)
        print(f"{alert['tag']}: {name} has ended", flush=True)

    def on_message(self, _bus, message):
        structure = message.get_structure()
        if message.has_name("streamkvqa/alert"):
            (self.begin if structure["status"] == "began" else self.end)(structure)
        elif message.has_name("GstBinForwarded"):
            inner = structure["message"]
            if inner.type == Gst.MessageType.EOS and inner.src.get_name() == "file":
                recorder = inner.src.get_parent()
                recorder.set_state(Gst.State.NULL)
                self.pipeline.remove(recorder)
        elif message.type == Gst.MessageType.ERROR:
            self.failed = message.parse_error()[0].message
            self.loop.quit()
        elif message.type == Gst.MessageType.EOS:
            self.loop.quit()
        return GLib.SOURCE_CONTINUE


if __name__ == "__main__":
    Gst.init(None)
    arguments = dict(enumerate(sys.argv))
    failed = Recorder(
        arguments.get(1, str(MEDIA / "everyday.webm")),
        arguments.get(2, str(MEDIA / "everyday.questions.jsonl")),
        arguments.get(3, str(ROOT / "models" / "everyday")),
    ).run()
    if failed:
        sys.exit(f"error: {failed}")
