"""The web application: it sends tasks, and may wait for them."""

from fastapi import FastAPI
from tasks import send_receipt

api = FastAPI()


@api.post("/orders/{order}")
def buy(order: int) -> dict[str, str]:
    """Send the receipt, and wait for it; FastAPI runs a plain function in a thread."""
    return {"receipt": send_receipt.delay(order).get(timeout=10)}
