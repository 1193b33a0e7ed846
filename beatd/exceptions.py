"""Every error that beatd raises, in one tree.

::

    BeatdError
    ├── ConfigError               the file or the command line is wrong; carries every fault found
    │   └── WrongUrl              a URL that cannot be used (also a ValueError)
    ├── ScheduleError             a schedule that cannot be read (also a ValueError)
    ├── MessageError              a message that cannot be built or read
    ├── StoreError                the state store
    │   ├── StoreUnavailable      it cannot be reached or does not answer in time; worth a retry
    │   │   └── StoreUnwritable   it answers, and takes no writes for now: a read-only replica, full memory
    │   ├── StoreRefused          it answers, and says no: too old, a key of a foreign type
    │   │   └── StoreDenied       it does not let this user in: a wrong password
    │   ├── StoreRolledBack       it lost writes that it had confirmed; what is in it now is to be read again
    │   └── TermLost              the term is not the current one any more: nothing was written
    ├── BrokerError               a message could not be handed to the broker
    │   └── BrokerRefused         it answers, and says no to this queue or exchange
    ├── RequestError              runs that were asked for by hand
    │   ├── NobodyLeads           no daemon took the request up; it was withdrawn
    │   └── RequestRefused        the leader says no: there is no such entry, the window holds too many runs
    ├── ImproperlyConfigured      a composition that cannot work (also a ValueError)
    ├── TaskPredicate             how a task ends itself
    │   ├── Ignore                leave no result
    │   ├── Reject                give the message back, or away
    │   └── Retry                 the task asked to be run again
    └── TaskError                 what Celery names, raised in and around tasks
        ├── MaxRetriesExceededError
        ├── ChordError            a task of a chord's header failed, so its body does
        ├── NotRegistered         the worker knows no task of that name (also a KeyError)
        ├── SoftTimeLimitExceeded
        ├── TimeLimitExceeded
        ├── WorkerLostError       the process that ran the task is gone
        ├── TimeoutError          a result did not arrive in time
        └── TaskRevokedError      the task was revoked or had expired

Exceptions of redis and kombu stop at ``store/`` and ``broker/`` and come out as these. Celery's other names are at the
end.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

from beatd.redaction import encodable


class BeatdError(Exception):
    """The root: ``except BeatdError`` catches whatever beatd means to tell its caller."""


class Fault(NamedTuple):
    """One error of a configuration, and where it is: ``file:line:column: path: message``."""

    file: str
    line: int | None
    path: str
    message: str
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"
        return encodable(text)  # names of files may be no UTF-8


class ConfigError(BeatdError):
    """The configuration cannot be used; ``faults`` has everything that was found, not only the first.

    ``files`` are more files in which the reason may lie: when one of them changes, another try is worth it.
    """

    def __init__(self, faults: Iterable[Fault], files: Iterable[str] = ()) -> None:
        self.faults = tuple(faults)
        self.files = tuple(files)
        super().__init__("\n".join(map(str, self.faults)))


class WrongUrl(ConfigError, ValueError):
    """A URL that cannot be used; ``reason`` and the text have nothing of it that could be a secret."""

    def __init__(self, shown: str, reason: str) -> None:
        self.shown = shown
        self.reason = reason
        super().__init__([Fault(shown, None, "", reason)])

    def __reduce__(self) -> tuple[type[WrongUrl], tuple[str, str]]:
        return type(self), (self.shown, self.reason)


class WrongTaskClass(ConfigError, TypeError):
    """The class of a task, such as its ``base``, that does not inherit from :class:`beatd.Task`."""


class ScheduleError(BeatdError, ValueError):
    """A schedule that cannot be read; the text names what is wrong and what would be right."""


class MessageError(BeatdError, ValueError):
    """A message that cannot be built from its parts, or not be read as one."""


class StoreError(BeatdError):
    """Something is wrong with the state store."""

    word: ClassVar[Literal["store_unavailable", "store_refused"]] = "store_unavailable"
    """The event in logs and the kind of the problem in status, page and metrics."""


class StoreUnavailable(StoreError):
    """The state store cannot be reached, or does not answer in time."""

    since_ms: int | None = None
    """Since when (ms), where that is known."""


class StoreUnwritable(StoreUnavailable):
    """The state store answers, and takes no writes for now: a read-only replica, full memory, a failing disk.

    It is retried like a store that is away, as a failover ends it, and is reported as one that refuses.
    """

    word = "store_refused"


class StoreRefused(StoreError):
    """The state store answers and refuses: a wrong password, a version too old, a key of a foreign type."""

    word = "store_refused"


class StoreDenied(StoreRefused):
    """The state store lets this user in no more: its password is wrong, or the user disabled."""


class StoreRolledBack(StoreError):
    """The state store lost writes that it had confirmed: a loss of power, a replica that lagged, a flush."""


class TermLost(StoreError):
    """A write was fenced off: another daemon leads, or nobody does. Nothing was written."""


class BrokerError(BeatdError):
    """A message could not be handed to the broker."""


class BrokerRefused(BrokerError):
    """The broker answers, and says no to one queue or exchange: others may do."""


class RequestError(BeatdError):
    """Something is wrong with a request for runs."""


class NobodyLeads(RequestError):
    """No daemon took the request up in time. It was withdrawn: nothing is sent later."""


class RequestRefused(RequestError):
    """The leader refused the request, or broke it off; ``unknown`` says that there is no entry of that name."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        self.unknown = unknown
        super().__init__(message)


class TaskError(BeatdError):
    """The root of the errors that Celery's task authors know by name."""


class TaskPredicate(BeatdError):
    """Raised by a task to end itself in a way of its own: :class:`Ignore`, :class:`Reject`, :class:`Retry`."""


class Ignore(TaskPredicate):
    """Raised by a task that wants no result and no state to be stored."""


class Reject(TaskPredicate):
    """Raised by a task to reject its message, and with ``requeue`` to have it delivered again."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """Raised by ``Task.retry`` to end this attempt.

    ``exc`` is the error that led to it, or its text; ``when`` is seconds or an aware datetime; ``sig`` is the next
    attempt.
    """

    sig: Any = None
    _text: str | None = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: Any = None,
        is_eager: bool = False,
        sig: Any = None,
    ) -> None:
        self.message = message
        if isinstance(exc, str):
            exc, self._text = None, exc
        self.exc = exc
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when)

    @property
    def excs(self) -> str | None:
        """The error as text."""
        return self._text if self.exc is None else repr(self.exc)

    def humanize(self) -> str:
        """The moment of the next attempt, in words."""
        if isinstance(self.when, int | float):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        text = f"Retry {self.humanize()}"
        return text if self.excs is None else f"{text}: {self.excs}"


class MaxRetriesExceededError(TaskError):
    """The task asked for another attempt and has none left."""

    def __init__(self, *args: Any, task_args: Any = (), task_kwargs: Any = None) -> None:
        self.task_args = task_args
        self.task_kwargs = task_kwargs or {}
        super().__init__(*args)


class ChordError(TaskError):
    """A task of a chord's header failed, or the body could not be sent: the body has this as its result."""


class NotRegistered(TaskError, KeyError):
    """No task of that name is known here."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SoftTimeLimitExceeded(TaskError):
    """Raised inside a task whose soft time limit is over, so that it can clean up."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args}"


class TimeLimitExceeded(TaskError):
    """The hard time limit was over and the task's process was killed."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args}"


class WorkerLostError(TaskError):
    """The process that ran the task ended before the task did."""


class TimeoutError(TaskError, builtins.TimeoutError):  # noqa: A001 - Celery's name, kept
    """The result did not arrive in the time that the caller was ready to wait."""


class TaskRevokedError(TaskError):
    """The task was revoked, or expired before it could start."""


class Terminated(TaskError):
    """The process that ran the task was told to end."""


class AlreadyRegistered(TaskError):
    """Not raised; exists for ``except`` clauses."""


class IncompleteStream(TaskError):
    """A task has not finished, so that its children are not known yet."""


class ImproperlyConfigured(BeatdError, ValueError):
    """A setting or a composition that cannot work."""


class SecurityError(BeatdError):
    """Signed messages are not supported."""


class QueueNotFound(MessageError, KeyError):
    """The message's queue is not in ``task_queues``, and ``task_create_missing_queues`` is off."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class BackendError(StoreError):
    """A result cannot be read or written. beatd raises other kinds of :class:`StoreError`."""


class BackendGetMetaError(BackendError):
    """A result cannot be read."""


class BackendStoreError(BackendError):
    """A result cannot be written."""


class WorkerTerminate(SystemExit):
    """Raised by a task: in beatd it ends the task only, as any SystemExit."""


class WorkerShutdown(SystemExit):
    """Raised by a task: in beatd it ends the task only, as any SystemExit."""


class CeleryWarning(UserWarning):
    """The base of Celery's warnings; exists for ``filterwarnings``."""


# What Celery and kombu call them, for code that names these in its ``except`` clauses.
AlwaysEagerIgnored = DuplicateNodenameWarning = DuplicateTaskNameWarning = CeleryWarning
FixupWarning = NotConfigured = SecurityWarning = CeleryWarning
CDeprecationWarning = DeprecationWarning
CPendingDeprecationWarning = PendingDeprecationWarning
CeleryError = BeatdError
EncodeError = MessageError
InvalidTaskError = MessageError
OperationalError = BrokerError
RetryTaskError = Retry
SystemTerminate = WorkerTerminate
