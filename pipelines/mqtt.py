#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Publishes answers and alerts on an MQTT broker.

    pipelines/mqtt.py HOST[:PORT]/TOPIC [VIDEO [QUESTIONS.jsonl [MODEL]]]

TOPIC/answer gets every answer and TOPIC/alert every alert, each one JSON object, delivered at least once.
TOPIC/is/TAG holds `true` or `false` for each question that has a condition (`when`) and a `tag`: whoever
subscribes later learns it at once. TOPIC/status holds `online`, and `offline` when this program is gone,
whatever ended it. While the broker is away up to 1000 messages wait, and the video goes on.

Needs Debian's python3-paho-mqtt.
"""

import json
import sys
import time

import paho.mqtt.client as mqtt

from watch import say, watch

PORT, WAITING, LAST_WORDS, LONGEST_WAIT = 1883, 1000, 10, 30


def connected(host, port, topic):
    """A client that connects when it can, and again whenever it has to."""
    client = mqtt.Client()
    client.max_queued_messages_set(WAITING)
    client.reconnect_delay_set(1, LONGEST_WAIT)
    client.will_set(f"{topic}/status", "offline", qos=1, retain=True)

    def on_connect(client, _data, _flags, code):
        if code:
            say(f"{host}:{port}: {mqtt.connack_string(code)}")
        else:
            client.publish(f"{topic}/status", "online", qos=1, retain=True)

    client.on_connect = on_connect
    client.on_connect_fail = lambda *_: say(f"{host}:{port} does not answer; trying again")
    client.on_disconnect = lambda *_: say(f"{host}:{port} is gone; connecting again")
    client.connect_async(host, port)
    client.loop_start()
    return client


def main():
    if len(sys.argv) < 2 or "/" not in sys.argv[1]:
        sys.exit(__doc__)
    address, topic = sys.argv[1].split("/", 1)
    host, _, port = address.rpartition(":") if ":" in address else (address, "", PORT)
    client = connected(host, int(port), topic)
    waiting = set()
    client.on_publish = lambda _client, _data, number: waiting.discard(number)

    def publish(to, text, retain=False):
        info = client.publish(f"{topic}/{to}", text, qos=1, retain=retain)
        if info.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            say("too many messages wait; one is lost")
        else:
            waiting.add(info.mid)

    def last_words():
        end = time.monotonic() + LAST_WORDS
        while waiting and time.monotonic() < end:
            time.sleep(0.05)

    def on_message(name, structure):
        kind = name.removeprefix("streamkvqa/")
        if kind in ("answer", "alert"):
            publish(kind, structure["json"])
        if kind == "alert":
            alert = json.loads(structure["json"])
            if alert.get("tag"):
                publish(f"is/{alert['tag']}", json.dumps(alert["status"] == "began"), retain=True)

    failed = watch(sys.argv[2:], on_message)
    publish("status", "offline", retain=True)
    last_words()
    if waiting:
        failed = failed or f"error: {address} did not take everything"
    client.on_disconnect = None
    client.disconnect()
    client.loop_stop()
    sys.exit(failed)


if __name__ == "__main__":
    main()
