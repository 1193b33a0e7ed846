"""An app's connections: to the broker, to the results, to the workers. Opened on first use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from beatd import broker
from beatd.app.conf import Conf
from beatd.app.context import current
from beatd.app.group_result import GroupResult, ResultSet
from beatd.app.message_options import utc_now
from beatd.app.publishing import Outgoing, Sent, SentEvents
from beatd.app.result import AsyncResult
from beatd.app.routing import Queues, Route
from beatd.broker import Publisher, is_redis, place_of
from beatd.clock import Clock
from beatd.exceptions import WrongUrl
from beatd.message.protocol import TaskMessage
from beatd.states import READY_STATES
from beatd.store.result_document import document
from beatd.store.results import NoResults, RedisResults, Results, Stored

if TYPE_CHECKING:
    from beatd.app.app import App
    from beatd.app.control import Control


class Connections:
    """The part of an app that speaks to servers."""

    conf: Conf
    clock: Clock

    @cached_property
    def publisher(self) -> Publisher:
        """The way to the broker; connects on first use."""
        url = self.conf.broker_url
        urls = url if isinstance(url, str) else ";".join(url)
        return broker.open(urls.split(";")[0] if is_redis(urls) else urls, arguments=Queues(self.conf).arguments)

    @cached_property
    def outgoing(self) -> Outgoing:
        """What messages go through on their way to the publisher."""
        return Outgoing(lambda: self.publisher, self._tell_monitors)

    @cached_property
    def sent_events(self) -> SentEvents:
        """Tells monitors what this app sends."""
        return SentEvents(self.conf, self.clock)

    def _tell_monitors(self, sent: Sequence[Sent]) -> None:
        if sent and self.conf.task_send_sent_event:
            self.sent_events.tell(sent)

    def publish(self, message: TaskMessage, route: Route, compression: str | None = None) -> None:
        """Hand a finished message to the broker; raises :class:`~beatd.exceptions.BrokerError`."""
        self.outgoing.send(message, route, compression)

    def publishing_together(self) -> AbstractContextManager[None]:
        """Messages that are sent in the block leave together at its end; none does if the block raises."""
        return self.outgoing.together()

    @cached_property
    def results(self) -> Results:
        """The way to the results. Without a ``result_backend`` nothing is stored, and asking is an error."""
        url = self.conf.result_backend
        if not url or url.startswith("disabled"):
            return NoResults()
        if not is_redis(url):
            reason = "results are kept in Redis only: expected a URL such as redis://localhost:6379/1"
            raise WrongUrl(f"result_backend {place_of(url)}", reason)
        keep = self.conf.result_expires
        keep_s = int(keep.total_seconds() if hasattr(keep, "total_seconds") else keep or 0)
        return RedisResults(broker.redis_url(url), keep_s=keep_s)

    @property
    def backend(self) -> Results:
        """Celery's name for :attr:`results`."""
        return self.results

    def AsyncResult(self: Any, id: str, **more: Any) -> AsyncResult[Any]:  # noqa: A002, N802 - Celery's names
        """The handle of the task with that id."""
        return AsyncResult(id, **{"app": self, **more})

    @cached_property
    def GroupResult(self) -> type[GroupResult]:  # noqa: N802 - Celery's name
        """Handles of several tasks under one id: ``app.GroupResult(id, results)``, ``app.GroupResult.restore(id)``."""
        return type("GroupResult", (GroupResult,), {"of": self})

    def ResultSet(self: Any, results: Any = None, **more: Any) -> ResultSet:  # noqa: N802 - Celery's name
        """The handles of several tasks, asked as one."""
        return ResultSet(results, **{"app": self, **more})

    def store_state(self, task_id: str, state: str, result: Any) -> None:
        """Store a task's state; see :meth:`beatd.Task.update_state`."""
        done = self.now().isoformat() if state in READY_STATES else None
        self.results.store([Stored(task_id, document(task_id, state, result, date_done=done))])

    @property
    def current_task(self) -> Any:
        """The task of this app that runs in this thread or coroutine, None outside of one."""
        running = current()
        return running.task if running is not None and running.task.app is self else None

    @property
    def timezone(self) -> str:
        """The zone of naive times, by IANA name."""
        return str(self.conf.timezone or "UTC")

    def now(self) -> datetime:
        """The time in :attr:`timezone`."""
        return utc_now(self.clock.now_ms()).astimezone(ZoneInfo(self.timezone))

    def close(self) -> None:
        """Close all connections; they come back when they are needed."""
        for name in ("publisher", "results", "sent_events"):
            if (part := self.__dict__.pop(name, None)) is not None:
                part.close()


def control_of(app: App) -> Control:
    """The app's remote control of workers."""
    from beatd.app.control import Control  # noqa: PLC0415 - few programs need it

    return Control(app)
