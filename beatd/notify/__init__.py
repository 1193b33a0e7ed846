"""Notifications and pings: the texts of messages, and their way to a target.

The promise: a message leaves from the outbox of the store, in a thread of its own and in bounded time; a target that
hangs or fails delays nobody else, and no address or secret is in a log, an error or the store.
"""
