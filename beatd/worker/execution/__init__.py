"""Execution: a message's body decoded, its task called within limits, its outcome reported."""
