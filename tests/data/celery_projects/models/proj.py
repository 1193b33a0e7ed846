# ruff: noqa
"""Like FastAPI services: arguments and results are pydantic's models."""

import os
from celery import Celery
from pydantic import BaseModel
from waiting import WAIT

app = Celery("models", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])


class Order(BaseModel):
    item: str
    count: int = 1


class Invoice(BaseModel):
    total: int
    lines: list[Order]


@app.task(pydantic=True)
def invoice(order: Order, price: int) -> Invoice:
    return Invoice(total=order.count * price, lines=[order])


def calls():
    return Invoice(**invoice.delay(Order(item="pear", count=2).model_dump(), 5).get(timeout=WAIT)).model_dump()


EXPECTED = {"total": 10, "lines": [{"item": "pear", "count": 2}]}
