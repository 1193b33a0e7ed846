"""Pipeline of independent reads: the questions that they ask at the same time travel together, in one round trip.

Each read runs in a thread of its own, and its questions wait until every other read has asked one, too, or has ended.
Then one pipeline goes to each server. So reads take as many round trips as the one that needs most, on one connection,
whatever they are; they are written as if each were alone.

    with joint_reads() as read:
        fleet = read(registry.look, shards=1)
        overdue = read(outcomes.overdue)
    fleet.result(), overdue.result()

A question waits for a read that asks none, because it computes or waits for a lock, for :data:`WAIT_S` at most.
Transactions, pub/sub and streams of scripts are sent by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

import redis
from redis.exceptions import ResponseError

P = ParamSpec("P")
T = TypeVar("T")

Command = tuple[Sequence[Any], dict[str, Any]]
"""A command with its arguments, and the options for reading its answer, as redis-py keeps them in a pipeline."""


WAIT_S = 1.0
"""Seconds that a question waits for those of other reads, at most."""


class Read(Protocol):
    """Adds a read; its result, or the error that it raises, is there when the block has ended."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...


@contextmanager
def joint_reads() -> Iterator[Read]:
    """Run the reads that are added within the block side by side, when it ends. Blocks may be nested."""
    reads: list[tuple[Future[Any], Callable[[], Any]]] = []

    def add(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        reads.append((future, partial(function, *args, **kwargs)))
        return future

    yield add
    if reads:
        outer = _ROUNDS.get()
        (outer or _Rounds()).run(reads, is_nested=outer is not None)


class _Question:
    """Commands of one read for one server, and the answers or the error of the connection."""

    def __init__(self, client: redis.Redis, commands: Sequence[Command]) -> None:
        self.client = client
        self.commands = commands
        self.answers: Sequence[Any] | None = None
        self.error: Exception | None = None

    def is_answered(self) -> bool:
        return self.answers is not None or self.error is not None


class _Rounds:
    """Round trips of reads that run side by side."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        """Reads that have not ended; one with reads of its own is not counted while these run."""
        self._waiting: list[_Question] = []

    def run(self, reads: Sequence[tuple[Future[Any], Callable[[], Any]]], *, is_nested: bool) -> None:
        """Run reads to their ends. They end as their questions do, for which the clients have timeouts."""
        left = len(reads)
        with self._changed:
            self._running += left - is_nested

        def end(settle: Callable[[], None]) -> None:
            nonlocal left
            with self._changed:
                left -= 1
                if left or not is_nested:  # the last of nested reads hands its place back
                    self._running -= 1
                settle()
                self._send_if_all_wait()

        def run_one(future: Future[Any], read: Callable[[], Any]) -> None:
            _ROUNDS.set(self)
            try:
                result = read()
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                end(partial(future.set_exception, error))
            else:
                end(partial(future.set_result, result))

        for future, read in reads:
            run = partial(copy_context().run, run_one, future, read)
            try:
                threading.Thread(target=run, name="joint-read", daemon=True).start()
            except RuntimeError as error:  # the process ends, or has no more threads
                end(partial(future.set_exception, error))
        wait([future for future, _ in reads])

    def ask(self, client: redis.Redis, commands: Sequence[Command]) -> Sequence[Any]:
        """The answers to commands, and errors of the server among them; raises the error of a connection."""
        question = _Question(client, commands)
        with self._changed:
            self._waiting.append(question)
            self._send_if_all_wait()
            while not self._changed.wait_for(question.is_answered, WAIT_S):
                self._send()
        if question.error is not None:
            raise question.error
        return question.answers or ()

    def _send_if_all_wait(self) -> None:
        if self._waiting and len(self._waiting) >= self._running:
            self._send()

    def _send(self) -> None:
        asked, self._waiting = self._waiting, []
        by_client: dict[redis.Redis, list[_Question]] = {}
        for question in asked:
            by_client.setdefault(question.client, []).append(question)
        try:
            _exchange_with_all(list(by_client.items()))
        finally:
            for question in asked:
                if not question.is_answered():
                    question.error = RuntimeError("the question was not sent")
            self._changed.notify_all()


def _exchange_with_all(servers: Sequence[tuple[redis.Redis, Sequence[_Question]]]) -> None:
    """Ask all servers at the same time; the questions go out by themselves, they take no part in joint reads."""
    first, *others = [partial(Context().run, _exchange, client, questions) for client, questions in servers]
    threads = [threading.Thread(target=other, name="round-trip", daemon=True) for other in others]
    for thread in threads:
        thread.start()
    first()
    for thread in threads:
        thread.join()


def _exchange(client: redis.Redis, questions: Sequence[_Question]) -> None:
    """Send the questions for one server."""
    try:
        with client.pipeline(transaction=False) as pipeline:
            for question in questions:
                for args, options in question.commands:
                    pipeline.execute_command(*args, **options)  # type: ignore[no-untyped-call]
            answers = iter(pipeline.execute(raise_on_error=False))
        for question in questions:
            question.answers = [next(answers) for _ in question.commands]
    except Exception as error:  # noqa: BLE001 - raised where each was asked
        for question in questions:
            question.error = error


_ROUNDS: ContextVar[_Rounds | None] = ContextVar("_ROUNDS", default=None)
"""The round trips in which the read of this thread takes part."""


def joint_answers(client: redis.Redis, commands: Sequence[Command]) -> list[Any] | None:
    """The answers to commands of a joint read, errors among them; None outside of such reads."""
    rounds = _ROUNDS.get()
    return None if rounds is None else list(rounds.ask(client, commands))


def _answers(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Send commands together; returns the answers, errors of the server among them.

    redis-py does the same with several times as many calls, for retries and counters that nobody asks for here. A
    connection whose answers were not read, as after an exception that a signal has raised, is not used again.
    """
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    answers: list[Any] = []
    try:
        connection.send_packed_command(connection.pack_commands([args for args, _ in commands]))
        for args, options in commands:
            try:
                answers.append(client.parse_response(connection, args[0], **options))  # type: ignore[no-untyped-call]
            except ResponseError as error:
                answers.append(error)
        return answers
    finally:
        if len(answers) < len(commands):
            connection.disconnect()
        pool.release(connection)


class JoiningClient(redis.Redis):
    """Client of one server; its commands and pipelines take part in joint reads."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, and return the answer."""
        commands = [(args, options)]
        answers = joint_answers(self, commands)
        if answers is None:
            answers = _answers(self, commands)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> JoiningPipeline:
        """Return a pipeline; without a transaction it takes part in joint reads."""
        return JoiningPipeline(self, transaction=transaction, shard_hint=shard_hint)


class JoiningPipeline(redis.client.Pipeline):
    """Pipeline of a :class:`JoiningClient`."""

    def __init__(self, client: redis.Redis, *, transaction: bool, shard_hint: Any = None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client
        self._is_transaction = transaction

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands; returns the answers in order, without ``raise_on_error`` also the server's errors."""
        if self._is_transaction:
            return super().execute(raise_on_error)
        stack = list(self.command_stack)
        self.reset()
        answers = joint_answers(self._client, stack) if stack else []
        if answers is None:
            answers = _answers(self._client, stack)
        if raise_on_error:
            self.raise_first_error(stack, answers)  # type: ignore[no-untyped-call]
        return answers
