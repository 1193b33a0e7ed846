"""The bundled worker: takes messages, runs their tasks, stores what became of them.

The promise: a message that was taken is run, put aside for later, returned to its queue, or buried among the dead
letters with a reason; whatever is killed, paused or broken, it is none of these only for as long as it takes to notice.

The way of a message: a *consumer* takes it (:mod:`beatd.worker.consumers`), *arrival* decides whether it may run, a
*pool* (:mod:`beatd.worker.pools`) runs it in a process or thread of its own by way of *execution*, and the *worker*,
one loop, settles what the pool reports: results and acknowledgements, in batches.
"""
