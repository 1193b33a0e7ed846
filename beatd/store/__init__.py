"""The state store: what beatd remembers, and the scripts that change it in one step.

The promise: a write either happens whole, under the current term, or not at all."""
