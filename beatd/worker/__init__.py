"""Worker: takes messages, runs their tasks, stores their results.

The promise: a message that was taken is run, parked for later, returned to its queue, or moved to the dead letters with
a reason. After a crash or a pause this takes as long as its detection.

The way of a message: a *consumer* takes it (:mod:`beatd.worker.consumers`), *admission* decides whether it may run, a
*pool* (:mod:`beatd.worker.pools`) runs it in a process or thread of its own by way of *execution*, and the *worker*,
one loop, settles what the pool reports: results and acknowledgements, in batches.
"""
