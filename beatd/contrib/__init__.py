"""Framework integrations.

Contract: a framework is imported only where it is in use.
"""
