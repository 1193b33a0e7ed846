"""The limit: a loop that takes messages, decodes them, calls the function and acknowledges; nothing else.

``python bare_tasks.py``: two processes. Messages are Celery's, as for beatd.
"""

import base64
import json
import os

import count
import redis
from beatd_tasks import fill as _fill


def fill(kind, n):
    _fill(kind, n)


def loop(results):
    client = redis.Redis.from_url(os.environ["BENCH_REDIS"])
    taken = f"taken-{os.getpid()}"
    while True:
        raws = client.rpop("celery", 100)
        if not raws:
            client.brpoplpush("celery", "celery", 1)
            continue
        pipeline = client.pipeline(transaction=False)
        pipeline.rpush(taken, *raws)
        for raw in raws:
            message = json.loads(raw)
            args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
            value = noop(*args, **kwargs)
            if results:
                task_id = message["headers"]["id"]
                pipeline.setex(
                    f"celery-task-meta-{task_id}", 86_400, json.dumps({"status": "SUCCESS", "result": value})
                )
        pipeline.ltrim(taken, len(raws), -1)
        pipeline.execute()


def noop(n=0):
    count.one_more()
    return n


if __name__ == "__main__":
    os.fork()
    loop(os.environ.get("BENCH_RESULTS"))
