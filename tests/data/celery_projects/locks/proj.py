# ruff: noqa
"""Like Sefaria's and Pretix's tasks: a decorator below the task's, a lock in Redis, time limits, a rate."""

import os
import functools
import time
import redis
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from waiting import WAIT

app = Celery("locks", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
store = redis.Redis.from_url(os.environ["RESULT_BACKEND"])


def single_instance(timeout):
    def decorator(function):
        @functools.wraps(function)
        def wrapper(self, *args, **kwargs):
            with store.lock(f"lock-{self.name}", timeout=timeout):
                return function(self, *args, **kwargs)

        return wrapper

    return decorator


class ProfiledEventTask(app.Task):
    def __call__(self, *args, **kwargs):
        if "event" in kwargs:
            kwargs["event"] = {"id": kwargs["event"]}
        return super().__call__(*args, **kwargs)


@app.task(bind=True, base=ProfiledEventTask, acks_late=True, rate_limit="100/s")
@single_instance(30)
def quota(self, event=None):
    """Count."""
    return [event, self.__doc__, type(self).__mro__[1].__name__]


@app.task(soft_time_limit=1, time_limit=20)
def slow():
    try:
        time.sleep(15)
    except SoftTimeLimitExceeded:
        return "soft"


def calls():
    return [quota.delay(event=4).get(timeout=WAIT), slow.delay().get(timeout=WAIT)]


EXPECTED = [[{"id": 4}, "Count.", "ProfiledEventTask"], "soft"]
