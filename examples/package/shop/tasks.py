"""The tasks of the shop."""

from beatd import App

app = App("shop")


@app.task
def count(what: str) -> str:
    """Count something."""
    return f"counted {what}"
