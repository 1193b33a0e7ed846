"""The web application: it sends tasks, and may wait for them."""

from flask import Flask

web = Flask("shop")
web.config["SENDER"] = "shop@example.com"


@web.post("/orders/<int:order>")
def buy(order: int) -> dict[str, str]:
    """Send the receipt, and wait for it."""
    from tasks import send_receipt  # noqa: PLC0415 - the tasks import this module

    return {"receipt": send_receipt.delay(order).get(timeout=10)}
