"""Nothing in a message can look like another record, or speak to the terminal; in JSON nothing ever could."""

import json
import logging
import random
import re

from beatd.log_format import JsonFormatter, TextFormatter

RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ")
PIECES = ["\n", "\r", "\x1b[2J", "\u2028", "\x85", "\x0b", "2026-01-01 00:00:00.000 INFO  beatd  Forged", "ä", "\t"]


def test_one_record_is_one_record():
    chance = random.Random(1)
    for _ in range(300):
        text = "".join(chance.choices(PIECES, k=chance.randint(1, 8)))
        trace = (ValueError, ValueError(text), None)
        record = logging.LogRecord("beatd", logging.INFO, "", 0, "said %s", (text,), trace)
        record.reason = text
        lines = TextFormatter().format(record).splitlines()
        assert [bool(RECORD.match(line)) for line in lines] == [True] + [False] * (len(lines) - 1)
        assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])
        assert json.loads(JsonFormatter().format(record))["message"] == f"said {text}"
        assert "\n" not in JsonFormatter().format(record)
