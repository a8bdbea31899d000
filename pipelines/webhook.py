#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Sends alerts to a web address, each as a POST of one JSON object, again until it is taken.

    pipelines/webhook.py URL [VIDEO [QUESTIONS.jsonl [MODEL]]]

VIDEO is a file or an address; a questions file says what is an alert (`when`). While nobody answers at URL,
up to 1000 alerts wait, and the video goes on.
"""

import queue
import sys
import threading
import time
import urllib.request

from watch import say, watch

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
                say(f"{url}: {error}; the next try is in {wait} s")
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    alerts = queue.Queue(WAITING)
    postman = threading.Thread(target=deliver, args=(sys.argv[1], alerts))
    postman.start()

    def on_message(name, structure):
        if name == "streamkvqa/alert":
            try:
                alerts.put_nowait(structure["json"])
            except queue.Full:
                say("too many alerts wait; one is lost")

    failed = watch(sys.argv[2:], on_message)
    alerts.put(None)
    postman.join()
    sys.exit(failed)


if __name__ == "__main__":
    main()
