"""The daemon: it turns due entries into messages on the broker.

The promise: while this daemon holds the term, every run leaves once, in time; without the term, none does.

Read :mod:`~beatd.beat.service` first; its ``step`` is the whole of it. :mod:`~beatd.beat.heap` knows what is due,
:mod:`~beatd.beat.elector` who leads, :mod:`~beatd.beat.dispatcher` how runs leave, :mod:`~beatd.beat.catchup` what
happens to those that were missed.
"""
