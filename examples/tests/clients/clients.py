"""What a program in Python does with Pythia's queues: it writes to them, reads from them, and looks into them.

    python clients.py PORT STEP

Each step is a function below. It says by an assertion what docs/troubleshoot.md promises of the keys in Redis; the test
in main.rs runs the steps in turn, with a worker in Rust between them.
"""

import json
import struct
import sys
import time

import redis

LAMP = {"id": 1, "item": "lamp"}
BOMB = {"id": 2, "item": "bomb"}  # the worker says that no retry will help
SOFA = {"id": 3, "item": "sofa"}  # the worker wants to see it again in an hour


def read_frame(data):
    """The counters, the headers and the payload of what Pythia wrote; anything else is a payload alone."""
    if not data.startswith(b"\xf5PY1"):
        return {}, data
    crashes, failures, length = struct.unpack_from(">BBI", data, 4)
    headers, at = {"crashes": crashes, "failures": failures}, 10
    while at < 10 + length:
        (size,) = struct.unpack_from(">H", data, at)
        key, at = data[at + 2 : at + 2 + size].decode(), at + 2 + size
        (size,) = struct.unpack_from(">I", data, at)
        headers[key], at = data[at + 4 : at + 4 + size].decode(), at + 4 + size
    return headers, data[at:]


# --- Lists --------------------------------------------------------------------------------------------------------------


def list_write(client):
    for order in LAMP, BOMB, SOFA:
        client.lpush("orders", json.dumps(order))
    client.lpush("orders", b"no JSON \xff")
    assert client.llen("orders") == 4


def list_look(client):
    """After the worker: one done, one delayed by an hour, two dead; and it has stopped, so nobody holds anything."""
    assert client.llen("orders") == 0
    assert client.zcard("pythia:{orders}:delayed") == 1
    (member, due) = client.zrange("pythia:{orders}:delayed", 0, -1, withscores=True)[0]
    assert 3500 < due / 1000 - time.time() <= 3600, due
    headers, payload = read_frame(member[16:])  # behind 16 bytes that name it
    assert headers["failures"] == 1, headers
    assert json.loads(payload) == SOFA

    assert client.zcard("pythia:{orders}:dead") == 2
    for letter, died_at in client.zrange("pythia:{orders}:dead", 0, -1, withscores=True):
        assert abs(died_at / 1000 - time.time()) < 60, died_at
        reason, message = read_frame(letter)
        _, payload = read_frame(message)  # as it stood in the queue, or framed with its counters
        if reason["pythia-dead"] == "permanent":
            assert reason["pythia-dead-error"] == "no bombs", reason
            assert json.loads(payload) == BOMB
        else:
            assert reason["pythia-dead"] == "decode", reason
            assert payload == b"no JSON \xff"

    assert client.zcard("pythia:{orders}:consumers") == 0
    assert client.llen("pythia:{orders}:inbox") == 0
    assert not client.keys("pythia:{orders}:batch:*")


def list_read(client):
    """What a producer in Rust has sent: one message with a header, a frame around the JSON of the other client's kind."""
    headers, payload = read_frame(client.rpop("orders"))
    assert headers["tenant"] == "acme", headers
    assert headers["pythia-id"] == "order-4", headers
    assert abs(int(headers["pythia-at"]) / 1000 - time.time()) < 60, headers
    assert json.loads(payload) == {"id": 4, "item": "bed"}


# --- Streams ------------------------------------------------------------------------------------------------------------


def stream_write(client):
    for order in LAMP, BOMB, SOFA:
        client.xadd("orders", order)
    client.xadd("orders", {"id": "none"})


def stream_look(client):
    (group,) = client.xinfo_groups("orders")
    assert group["name"] == b"pythia", group
    assert group["pending"] == 0, group
    assert group.get("lag", 0) == 0, group  # Redis 7 and later
    assert client.zcard("pythia:{orders}:delayed:pythia") == 1
    letters = [fields for _, fields in client.xrange("pythia:{orders}:dead:pythia")]
    assert len(letters) == 2, letters
    bomb = next(fields for fields in letters if fields.get(b"item") == b"bomb")
    assert bomb[b"pythia-dead"] == b"permanent no bombs", bomb
    crashes, failures, _enqueued, _id = bomb[b"pythia-meta"].split(b" ", 3)
    assert (crashes, failures, bomb[b"id"]) == (b"0", b"1", b"2"), bomb
    other = next(fields for fields in letters if fields.get(b"id") == b"none")
    assert other[b"pythia-dead"].startswith(b"decode "), other
    client.xadd("orders", LAMP)  # with the worker gone
    (group,) = client.xinfo_groups("orders")
    assert group.get("lag", 1) == 1, group


def stream_read(client):
    """What a producer in Rust has sent is the last entry: one field, a frame."""
    (_, fields) = client.xrevrange("orders", count=1)[0]
    headers, payload = read_frame(fields[b"pythia"])
    assert headers["tenant"] == "acme", headers
    assert json.loads(payload) == {"id": 4, "item": "bed"}


# --- Pub/sub ------------------------------------------------------------------------------------------------------------


def pubsub_write(client):
    assert client.publish("orders", json.dumps(LAMP)) == 1  # one subscriber


def pubsub_read(client):
    """Says when it listens, then waits for what a producer in Rust publishes."""
    with client.pubsub() as channel:
        channel.subscribe("orders")
        assert next(channel.listen())["type"] == "subscribe"
        print("listening", flush=True)
        message = next(channel.listen())
    headers, payload = read_frame(message["data"])
    assert headers["tenant"] == "acme", headers
    assert json.loads(payload) == {"id": 4, "item": "bed"}


if __name__ == "__main__":
    port, step = sys.argv[1:]
    globals()[step](redis.Redis(port=int(port), socket_timeout=30))
    print("ok")
