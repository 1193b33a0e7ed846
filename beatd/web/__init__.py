"""The status page: what the daemons do, for people and for programs.

It is read-only: nothing here writes to the state store. Every query has a timeout, and the page reports a store that is
down or a file that is broken. No argument of a task and no password is ever shown. The page
needs no JavaScript, loads nothing from elsewhere, and stays quick with 100,000 entries.

Importing this package needs none of the extra packages; :mod:`~beatd.web.app` and :mod:`~beatd.web.server` do.
"""
