"""The state store: the persistent state of beatd, and the scripts that change it atomically.

The promise: a write either happens whole, under the current term, or not at all."""
