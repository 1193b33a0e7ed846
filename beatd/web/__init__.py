"""The page: an installation in a browser and over HTTP, for people and for programs.

One way from the store to the reader: ``store_view`` and ``broker_view`` ask, ``documents`` has the facts, ``site``
shows them and ``operations`` answers with them. What changes something is in ``actions``, for those whom ``access``
lets. Every query has a timeout, and the page reports a store that is down or a file that is broken. It needs no
JavaScript, loads nothing from elsewhere, and stays quick with 100,000 entries.

Importing this package needs none of the extra packages; :mod:`~beatd.web.app` and :mod:`~beatd.web.server` do.
"""
