"""The daemon: it turns due entries into messages on the broker.

The promise: while this daemon holds the term, every run leaves once, in time; without the term, none does.

Read :mod:`~beatd.beat.service` first; its ``step`` is all of it, for one shard. :mod:`~beatd.beat.roster` knows what is
in force, :mod:`~beatd.beat.heap` what is due, :mod:`~beatd.beat.catchup` what becomes of runs that were missed, and
:mod:`~beatd.beat.dispatcher` how runs leave.

Around it: :mod:`~beatd.beat.loop` turns the shards of this daemon, :mod:`~beatd.beat.elector` takes and keeps their
leases, :mod:`~beatd.beat.fleet` and :mod:`~beatd.beat.shards` decide which of them are this daemon's, and
:mod:`~beatd.beat.watchdog` sees to it that the loop turns.
"""
