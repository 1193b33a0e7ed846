# ruff: noqa
"""Like celery-progress and many tutorials: a bar that a web page polls."""

import os
from celery import Celery, Task
from celery.result import AsyncResult
from waiting import WAIT, wait_for

app = Celery("progress", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
PROGRESS_STATE = "PROGRESS"


class ProgressRecorder:
    def __init__(self, task):
        self.task = task

    def set_progress(self, current, total, description=""):
        self.task.update_state(state=PROGRESS_STATE, meta={"pending": False, "current": current, "total": total})


class Progress:
    def __init__(self, result):
        self.result = AsyncResult(result) if isinstance(result, str) else result

    def get_info(self):
        state = self.result.state  # once: it changes meanwhile
        response = {"state": state}
        if state == "SUCCESS":
            response.update(complete=True, result=self.result.get(), progress=100)
        elif state == PROGRESS_STATE:
            response.update(complete=False, progress=self.result.info)
        elif state == "FAILURE":
            response.update(complete=True, result=str(self.result.info))
        return response


@app.task(bind=True)
def work(self, n):
    recorder = ProgressRecorder(self)
    for i in range(n):
        recorder.set_progress(i + 1, n)
    return Progress(self.request.id).get_info()


@app.task(bind=True)
def broken(self):
    raise RuntimeError("broke")


def calls():
    good, bad = work.delay(3), broken.delay()
    last = wait_for(lambda: Progress(good.id).get_info(), lambda info: info.get("complete"))
    return [good.get(timeout=WAIT), last, wait_for(lambda: Progress(bad).get_info(), lambda info: info.get("complete"))]


SHOWN = {"state": "PROGRESS", "complete": False, "progress": {"pending": False, "current": 3, "total": 3}}
EXPECTED = [
    SHOWN,
    {"state": "SUCCESS", "complete": True, "result": SHOWN, "progress": 100},
    {"state": "FAILURE", "complete": True, "result": "broke"},
]
