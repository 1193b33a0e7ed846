"""beatd: a highly available cron for task queues."""
__version__ = "0.1.0"
