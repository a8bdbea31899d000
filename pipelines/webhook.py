#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Sends alerts to a web address, each as a POST of one JSON object, again until it is taken.

    pipelines/webhook.py URL [VIDEO [QUESTIONS.jsonl [MODEL]]]

VIDEO is a file or an address; a questions file says what is an alert (`when`). While nobody answers at URL,
up to 1000 alerts wait, and the video goes on.
"""

import pathlib
import queue
import sys
import threading
import time
import urllib.request

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEDIA = ROOT / "examples" / "media"
WAITING, TIMEOUT, LONGEST_WAIT = 1000, 10, 30


def deliver(url, alerts):
    """Alerts in their order; None ends."""
    while (alert := alerts.get()) is not None:
        wait = 1
        while True:
            request = urllib.request.Request(
                url, alert.encode(), {"Content-Type": "application/json"}, method="POST"
            )
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT):
                    break
            except OSError as error:
                print(f"{url}: {error}; the next try is in {wait} s", file=sys.stderr, flush=True)
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)


def main():
    arguments = dict(enumerate(sys.argv))
    if 1 not in arguments:
        sys.exit(__doc__)
    Gst.init(None)
    pipeline = Gst.parse_launch(
        "uridecodebin name=video ! streamkvqa name=qa ! fakesink sync=false"
    )
    video = arguments.get(2, str(MEDIA / "everyday.webm"))
    uri = video if Gst.uri_is_valid(video) else Gst.filename_to_uri(video)
    pipeline.get_by_name("video").set_property("uri", uri)
    qa = pipeline.get_by_name("qa")
    qa.set_property("questions-file", arguments.get(3, str(MEDIA / "everyday.questions.jsonl")))
    qa.set_property("model-path", arguments.get(4, str(ROOT / "models" / "everyday")))

    alerts = queue.Queue(WAITING)
    postman = threading.Thread(target=deliver, args=(arguments[1], alerts))
    postman.start()
    loop = GLib.MainLoop()
    failed = []

    def on_message(_bus, message):
        if message.has_name("streamkvqa/alert"):
            try:
                alerts.put_nowait(message.get_structure()["json"])
            except queue.Full:
                print("too many alerts wait; one is lost", file=sys.stderr, flush=True)
        elif message.type == Gst.MessageType.ERROR:
            failed.append(message.parse_error()[0].message)
            loop.quit()
        elif message.type == Gst.MessageType.EOS:
            loop.quit()

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", on_message)
    pipeline.set_state(Gst.State.PLAYING)
    try:
        loop.run()
    except KeyboardInterrupt:
        pass
    pipeline.set_state(Gst.State.NULL)
    alerts.put(None)
    postman.join()
    if failed:
        sys.exit(f"error: {failed[0]}")


if __name__ == "__main__":
    main()
