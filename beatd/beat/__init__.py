"""The daemon: it turns due entries into messages on the broker.

The promise: while this daemon holds the term, every run leaves once, in time; without the term, none does.

Read :mod:`~beatd.beat.loop` first; its ``step`` is all of it, for one shard. :mod:`~beatd.beat.active_schedule` knows
what is in force, :mod:`~beatd.beat.heap` what is due, :mod:`~beatd.planning.catchup` which missed runs are
still sent, and :mod:`~beatd.beat.dispatcher` how runs leave.

Around it: ``DaemonLoop`` in the same module turns the shards of this daemon, :mod:`~beatd.beat.elector` takes and keeps
their leases, :mod:`~beatd.beat.shard_assignment` decides which of them are this daemon's, and
:mod:`~beatd.beat.watchdog` ends the process if the loop hangs.
"""
