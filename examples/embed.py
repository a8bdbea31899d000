#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""An application with the element inside, in Python: a video plays, questions typed on the
console are answered about what has been on screen so far, and the video never waits.

    examples/embed.py                            the clip of a street
    examples/embed.py my.mp4 --model DIR
    examples/embed.py rtsp://camera/stream --model DIR

The plugin has to be installed or on GST_PLUGIN_PATH.
"""

import argparse
import pathlib
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


def parse_arguments():
    parser = argparse.ArgumentParser(description="Ask a playing video questions from the console")
    parser.add_argument("video", nargs="?", default=str(HERE / "media" / "everyday.webm"),
                        help="a file or an address")
    parser.add_argument("--model", default=str(HERE.parent / "models" / "everyday"))
    parser.add_argument("--window", action="store_true", help="play in a window")
    return parser.parse_args()


def address(video):
    return video if Gst.uri_is_valid(video) else Gst.filename_to_uri(video)


class Console:
    """Connects the element's questions and answers with standard input and output."""

    def __init__(self, arguments):
        sink = "videoconvert ! autovideosink" if arguments.window else "fakesink sync=true"
        self.pipeline = Gst.parse_launch(f"uridecodebin name=video ! streamkvqa name=qa ! {sink}")
        self.pipeline.get_by_name("video").set_property("uri", address(arguments.video))
        self.qa = self.pipeline.get_by_name("qa")
        self.qa.set_property("model-path", arguments.model)
        # Signals come from the element's own thread.
        self.qa.connect("token", lambda _qa, _id, text: print(text, end="", flush=True))
        bus = self.pipeline.get_bus()
        bus.add_watch(GLib.PRIORITY_DEFAULT, self.on_message)

        self.loop = GLib.MainLoop()
        self.pending = 0
        self.console_open = True
        self.exit_code = 0

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        print("Playing. Type a question and press Enter; Ctrl-D ends.", flush=True)
        threading.Thread(target=self.read_questions, daemon=True).start()
        try:
            self.loop.run()
        except KeyboardInterrupt:
            pass
        self.pipeline.get_bus().remove_watch()
        self.pipeline.set_state(Gst.State.NULL)
        return self.exit_code

    def read_questions(self):
        for line in sys.stdin:
            if line.strip():
                GLib.idle_add(self.ask, line.strip())
        GLib.idle_add(self.close_console)

    def ask(self, question):
        self.qa.emit("ask", question)
        self.pending += 1

    def close_console(self):
        self.console_open = False
        self.quit_if_done()

    def quit_if_done(self):
        if not self.console_open and self.pending == 0:
            self.loop.quit()

    def on_message(self, _bus, message):
        if message.type == Gst.MessageType.ERROR:
            print("error:", message.parse_error()[0].message, file=sys.stderr)
            self.exit_code = 1
            self.loop.quit()
        elif message.type == Gst.MessageType.EOS:
            # The memory outlives the video: questions are still answered.
            print("The video has ended. Ask on, or Ctrl-D.", flush=True)
        elif message.has_name("streamkvqa/answer"):
            self.pending -= 1
            print(f"\n    {footnote(message.get_structure())}", flush=True)
            self.quit_if_done()
        return GLib.SOURCE_CONTINUE


def footnote(answer):
    """When the question was asked and which seconds of the video the answer comes from."""
    text = f"({answer['status']}; asked at {answer['asked-at'] / Gst.SECOND:.1f} s"
    for stretch in answer["evidence"][:3]:
        text += f"; seen {stretch['start'] / Gst.SECOND:.1f}-{stretch['end'] / Gst.SECOND:.1f} s"
    return text + ")"


if __name__ == "__main__":
    arguments = parse_arguments()
    Gst.init(None)
    sys.exit(Console(arguments).run())
