"""Metrics and health of one process: ``/metrics``, ``/healthz`` and ``/readyz`` on a port of its own.

The promise: the endpoint never delays the work of its process and never ends it, it answers while the state store is
away, and its connections are bounded. Names, types and labels of all metrics are in :mod:`beatd.metrics.families`.
"""
