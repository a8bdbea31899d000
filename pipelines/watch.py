# SPDX-License-Identifier: MPL-2.0
"""What webhook.py and mqtt.py have in common: a video watched by the element to its end, without a window."""

import pathlib
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEDIA = ROOT / "examples" / "media"


def watch(arguments, on_message):
    """Plays VIDEO with QUESTIONS and MODEL, or the clip that ships, and hands over the element's messages:
    their names and their structures. Says why it failed, or nothing."""
    arguments = dict(enumerate(arguments))
    Gst.init(None)
    pipeline = Gst.parse_launch(
        "uridecodebin name=video ! streamkvqa name=qa ! fakesink sync=false"
    )
    video = arguments.get(0, str(MEDIA / "everyday.webm"))
    uri = video if Gst.uri_is_valid(video) else Gst.filename_to_uri(video)
    pipeline.get_by_name("video").set_property("uri", uri)
    qa = pipeline.get_by_name("qa")
    qa.set_property("questions-file", arguments.get(1, str(MEDIA / "everyday.questions.jsonl")))
    qa.set_property("model-path", arguments.get(2, str(ROOT / "models" / "everyday")))
    loop = GLib.MainLoop()
    failed = []

    def on_bus(_bus, message):
        structure = message.get_structure()
        if message.type == Gst.MessageType.ELEMENT and structure.get_name().startswith("streamkvqa/"):
            on_message(structure.get_name(), structure)
        elif message.type == Gst.MessageType.ERROR:
            failed.append(message.parse_error()[0].message)
            loop.quit()
        elif message.type == Gst.MessageType.EOS:
            loop.quit()
        return GLib.SOURCE_CONTINUE

    bus = pipeline.get_bus()
    bus.add_watch(GLib.PRIORITY_DEFAULT, on_bus)
    pipeline.set_state(Gst.State.PLAYING)
    try:
        loop.run()
    except KeyboardInterrupt:
        pass
    bus.remove_watch()
    pipeline.set_state(Gst.State.NULL)
    return f"error: {failed[0]}" if failed else None


def say(text):
    print(text, file=sys.stderr, flush=True)
