"""Age of the oldest message of a queue."""

from __future__ import annotations

import base64
import json

from beatd.message.protocol import oldest_age_s

NOW = 1_800_000_000_000


def envelope(due_at: object) -> bytes:
    body = base64.b64encode(b"[[], {}, {}]").decode()
    headers = {"id": "1", "task": "t", "beatd-due-at": due_at}
    properties = {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": "x"}
    kinds = {"content-type": "application/json", "content-encoding": "utf-8"}
    return json.dumps({"body": body, "headers": headers, "properties": properties, **kinds}).encode()


def test_the_earliest_run_counts():
    assert oldest_age_s([envelope("2027-01-15T07:59:30+00:00"), envelope("2027-01-15T07:58:00+00:00")], NOW) == 120.0


def test_a_clock_that_is_ahead_makes_no_negative_age():
    assert oldest_age_s([envelope("2027-01-15T09:00:00+00:00")], NOW) == 0.0


def test_messages_of_others_say_nothing():
    assert oldest_age_s([b"junk", b"[]", envelope(None), envelope(5), envelope("never")], NOW) is None
