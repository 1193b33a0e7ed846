"""The module ``proj`` of both workers for what tasks see and what is stored of them.

No test, and not imported as it is. BROKER, BACKEND, QUEUE and MORE settings are filled in. Tasks note what they see
under their id.
"""

# ruff: noqa: B904, BLE001, F821, PLW0108, TRY301
# mypy: ignore-errors

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import time
import uuid

import redis
from celery import Celery, Task, chain
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry, SoftTimeLimitExceeded, TaskError
from celery.signals import (
    task_failure,
    task_internal_error,
    task_postrun,
    task_prerun,
    task_retry,
    task_success,
)
from celery.utils.log import get_task_logger

app = Celery("proj", broker=BROKER, backend=BACKEND)
app.conf.task_default_queue = QUEUE
app.conf.update(MORE)
app.conf.broker_connection_retry_on_startup = True
log = get_task_logger(__name__)
store = redis.Redis.from_url(BACKEND)


def shown(value):
    """The value as JSON, what is no JSON as its type and text."""
    if isinstance(value, dict):
        return {str(name): shown(each) for name, each in sorted(value.items(), key=str)}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(shown, value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Retry):
        return ["Retry", shown(value.when)]
    if isinstance(value, BaseException):
        return [type(value).__name__, *map(shown, value.args)]
    if isinstance(value, Task):
        return f"task {value.name}"
    return type(value).__name__


def note(key, *values):
    store.rpush(f"notes-{key}", json.dumps([shown(value) for value in values]))


REQUEST = [
    "id",
    "task",
    "args",
    "kwargs",
    "retries",
    "eta",
    "expires",
    "timelimit",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "chord",
    "chain",
    "callbacks",
    "errbacks",
    "shadow",
    "argsrepr",
    "kwargsrepr",
    "ignore_result",
    "is_eager",
    "called_directly",
    "correlation_id",
    "delivery_info",
    "properties",
    "lang",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "utc",
    "logfile",
    "loglevel",
    "headers",
    "taskset",
    "hostname",
    "reply_to",
    "origin",
    "children",
]


def request_of(task):
    request = task.request
    found = {}
    for name in REQUEST:
        try:
            found[name] = getattr(request, name)
        except Exception as error:
            found[name] = error
    return found


@app.task(bind=True, typing=False)
def look(self, *args, **kwargs):
    note(self.request.id, "request", request_of(self))
    return "looked"


@app.task(bind=True, typing=False, max_retries=2)
def look_again(self, *args, how=None, **kwargs):
    note(self.request.id, "request", request_of(self))
    if self.request.retries == 0:
        options = dict(how or {})
        if "exc" in options:
            options["exc"] = ValueError(options["exc"])
        if "eta" in options:
            options["eta"] = datetime.datetime.now(datetime.UTC)
        try:
            raise KeyError("context")
        except KeyError:
            made = self.retry(**{"countdown": 0, **options})
            note(self.request.id, "retry returned", made)
            raise Ignore
    return "looked again"


@app.task(bind=True, typing=False)
def retries(self, how):
    """Retry for ever; ``how`` gives the options."""
    note(self.request.id, "attempt", self.request.retries)
    options = dict(how)
    if "exc" in options:
        options["exc"] = ValueError(options["exc"])
    raise self.retry(**{"countdown": 0, **options})


@app.task(bind=True, max_retries=None)
def unlimited(self):
    if self.request.retries < 5:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(bind=True, max_retries=0)
def never(self, exc=False):
    raise self.retry(countdown=0, exc=ValueError("mine") if exc else None)


@app.task(bind=True)
def by_hand(self, kind):
    if kind == "retry":
        raise Retry("by hand")
    if kind == "retry exc":
        raise Retry("by hand", exc=ValueError("inner"))
    if kind == "retry when":
        raise Retry("by hand", when=12.5)
    if kind == "retry when time":
        raise Retry("by hand", when=datetime.datetime(2030, 1, 1))
    if kind == "ignore":
        raise Ignore("because", 1)
    if kind == "reject":
        raise Reject("because")
    if kind == "reject exc":
        raise Reject(ValueError("inner"), requeue=False)
    raise ValueError(kind)


@app.task(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0, bind=True)
def auto(self, what):
    note(self.request.id, "attempt", self.request.retries)
    raise ValueError(what)


@app.task(autoretry_for=(Exception,), retry_kwargs={"max_retries": 1, "countdown": 0}, bind=True)
def auto_any(self, what):
    note(self.request.id, "attempt", self.request.retries)
    if what == "ignore":
        raise Ignore("x")
    if what == "reject":
        raise Reject("x")
    if what == "retry":
        raise self.retry(countdown=0, max_retries=1)
    raise OSError(2, what)


@app.task(autoretry_for=(Exception,), retry_kwargs={"max_retries": 0}, throws=(KeyError,))
def auto_none():
    raise KeyError("none")


class Own(Exception):
    def __init__(self, a, b=2, *, c=3):
        super().__init__(f"{a} and {b}")
        self.a, self.b, self.c = a, b, c


class OwnText(Exception):
    def __str__(self):
        return "own text"


class BadText(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class NoArgs(Exception):
    def __init__(self):
        super().__init__("fixed", 1)


class Outer:
    class Inner(Exception):
        pass


class Reducing(Exception):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


def local_error():
    class Local(ValueError):
        pass

    return Local("local", 1)


def chained():
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError:
        raise TypeError("third")


def suppressed():
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("second") from None


def noted():
    error = ValueError("with notes")
    error.add_note("a note")
    raise error


def grouped():
    raise ExceptionGroup("several", [ValueError(1), KeyError("two")])


def recursive(n=0):
    return recursive(n + 1)


def raising(error):
    raise error


ERRORS = {
    "own": lambda: raising(Own("x", c=4)),
    "own text": lambda: raising(OwnText("arg")),
    "bad text": lambda: raising(BadText("arg")),
    "no args": lambda: raising(NoArgs()),
    "nested class": lambda: raising(Outer.Inner("in")),
    "reducing": lambda: raising(Reducing("x")),
    "local": lambda: raising(local_error()),
    "chained": chained,
    "suppressed": suppressed,
    "noted": noted,
    "grouped": grouped,
    "os": lambda: raising(FileNotFoundError(2, "No such file", "/x")),
    "unicode": lambda: b"\xff".decode(),
    "syntax": lambda: compile("a b", "<x>", "exec"),
    "key": lambda: {}["x"],
    "attribute": lambda: None.x,
    "import": lambda: __import__("no_such_module_at_all"),
    "no arguments": lambda: raising(ValueError()),
    "class": lambda: raising(ValueError),
    "dict": lambda: raising(ValueError({"a": {1: 2}})),
    "set": lambda: raising(ValueError({1})),
    "bytes": lambda: raising(ValueError(b"\xff")),
    "object": lambda: raising(ValueError(object)),
    "lambda": lambda: raising(ValueError(lambda: 1)),
    "date": lambda: raising(ValueError(datetime.date(2030, 1, 1), decimal.Decimal("1.5"), uuid.UUID(int=3))),
    "nan": lambda: raising(ValueError(float("nan"))),
    "exception": lambda: raising(ValueError(KeyError("inner"))),
    "tuple": lambda: raising(ValueError((1, (2,)))),
    "surrogate": lambda: raising(ValueError("\udcff")),
    "zero": lambda: raising(ValueError("a\0b")),
    "long": lambda: raising(ValueError("x" * 5000)),
    "task error": lambda: raising(TaskError("x")),
    "max retries": lambda: raising(MaxRetriesExceededError("x", task_args=(1,), task_kwargs={"a": 1})),
    "soft": lambda: raising(SoftTimeLimitExceeded("by hand")),
    "stop": lambda: raising(StopIteration(3)),
    "timeout": lambda: raising(TimeoutError("late")),
    "assert": lambda: raising(AssertionError("no")),
    "zero division": lambda: 1 / 0,
    "warning": lambda: raising(UserWarning("w")),
    "json": lambda: json.loads("{"),
    "redis": lambda: raising(redis.exceptions.ResponseError("WRONG")),
    "recursion": lambda: recursive(),
}


@app.task
def fails(kind):
    ERRORS[kind]()


@app.task(throws=(ValueError,))
def throws(kind):
    ERRORS[kind]()


@dataclasses.dataclass
class Data:
    a: int = 1


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


Point = collections.namedtuple("Point", "x y")


class Text(str):
    pass


VALUES = {
    "nan": lambda: float("nan"),
    "infinity": lambda: [float("inf"), -float("inf")],
    "bytes": lambda: b"\xff",
    "set": lambda: {1},
    "frozenset": lambda: frozenset({1}),
    "tuple": lambda: (1, (2, 3)),
    "keys": lambda: {1: 2, None: 3, 1.5: 5},
    "tuple keys": lambda: {(1, 2): 3},
    "dataclass": Data,
    "enum": lambda: Color.RED,
    "int enum": lambda: Number.ONE,
    "named tuple": lambda: Point(1, 2),
    "generator": lambda: (n for n in range(3)),
    "range": lambda: range(3),
    "map": lambda: map(str, [1]),
    "deque": lambda: collections.deque([1]),
    "counter": lambda: collections.Counter("aab"),
    "ordered": lambda: collections.OrderedDict(a=1),
    "dict keys": lambda: {"a": 1}.keys(),
    "times": lambda: [
        datetime.datetime(2030, 1, 1, 2, 3, 4, 5),
        datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=3))),
        datetime.date(2030, 1, 1),
        datetime.time(1, 2, 3),
    ],
    "delta": lambda: datetime.timedelta(1),
    "decimal": lambda: decimal.Decimal("1.50"),
    "uuid": lambda: uuid.UUID(int=5),
    "object": object,
    "function": lambda: print,
    "class": lambda: ValueError,
    "large": lambda: 2**80,
    "complex": lambda: 1j,
    "text": lambda: Text("t"),
    "exception": lambda: ValueError("returned", 1),
    "own exception": lambda: Own("returned"),
    "exception in list": lambda: [ValueError("returned")],
    "signature": lambda: look.s(1),
    "chain": lambda: chain(look.s(1), look.s(2)),
    "surrogate": lambda: "\udcff",
    "zero": lambda: "a\0b",
    "memory": lambda: memoryview(b"x"),
    "bytearray": lambda: bytearray(b"x"),
    "none": lambda: None,
    "empty": dict,
    "ellipsis": lambda: ...,
    "has json": lambda: type("J", (), {"__json__": lambda self: {"own": 1}})(),
    "retry": lambda: Retry("returned"),
}


@app.task
def returns(kind):
    return VALUES[kind]()


def einfo_of(einfo):
    if einfo is None:
        return None
    found = {}
    for name in ("exception", "type", "traceback", "tb", "exc_info"):
        try:
            value = getattr(einfo, name)
        except Exception as error:
            found[name] = error
            continue
        found[name] = value[0].__name__ if name == "exc_info" else value is not None
    found["text"] = str(einfo).splitlines()[-1]
    return found


class Hooked(Task):
    abstract = True

    def before_start(self, *args):
        note(args[0], "before_start", *args, self.request.id)
        if args[1][:1] == ["before"]:
            raise ValueError("before")

    def on_success(self, retval, task_id, args, kwargs):
        note(task_id, "on_success", retval, args, kwargs, self.request.id)
        if args[:1] == ["on_success"]:
            raise ValueError("on_success")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(task_id, "on_failure", exc, args, kwargs, einfo_of(einfo), self.request.id)
        if args[1:2] == ["on_failure"]:
            raise ValueError("on_failure")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(task_id, "on_retry", exc, args, kwargs, einfo_of(einfo), self.request.id)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(task_id, "after_return", status, retval, args, kwargs, self.request.id)


@app.task(base=Hooked, bind=True, max_retries=1)
def hooked(self, what, *more, **kwargs):
    note(self.request.id, "run")
    if what == "fail":
        raise ValueError("fail", 1)
    if what == "own":
        raise Own("x")
    if what == "reducing":
        raise Reducing("x")
    if what == "retry":
        raise self.retry(countdown=0, exc=KeyError("again"))
    if what == "retry plain":
        raise self.retry(countdown=0)
    if what == "ignore":
        raise Ignore("ignored")
    if what == "reject":
        raise Reject("rejected")
    if what == "replace":
        return self.replace(look.si())
    if what == "object":
        return object()
    return what


def signal_of(name):
    def receive(sender=None, **given):
        if getattr(sender, "name", None) not in ("proj.hooked", "proj.signalled"):
            return
        key = given.get("task_id") or getattr(given.get("request"), "id", None) or sender.request.id
        given = {name: value for name, value in given.items() if name not in ("signal", "runtime")}
        if "einfo" in given:
            given["einfo"] = einfo_of(given["einfo"])
        if "traceback" in given:
            given["traceback"] = given["traceback"] is not None
        if "request" in given:
            given["request"] = given["request"].id
        note(key, "signal", name, given)

    return receive


RECEIVERS = {
    "prerun": task_prerun,
    "postrun": task_postrun,
    "success": task_success,
    "failure": task_failure,
    "retry": task_retry,
    "internal": task_internal_error,
}
for _name, _signal in RECEIVERS.items():
    _signal.connect(signal_of(_name), weak=False)


@app.task(bind=True)
def states(self, kind):
    update = {
        "progress": lambda: self.update_state(state="PROGRESS", meta={"n": 1}),
        "no meta": lambda: self.update_state(state="PROGRESS"),
        "list": lambda: self.update_state(state="PROGRESS", meta=[1, (2,)]),
        "exception": lambda: self.update_state(state="FAILURE", meta=ValueError("set")),
        "failure dict": lambda: self.update_state(
            state="FAILURE", meta={"exc_type": "Mine", "exc_message": ["text"], "exc_module": "mine"}
        ),
        "success": lambda: self.update_state(state="SUCCESS", meta="mine"),
        "retry": lambda: self.update_state(state="RETRY", meta=KeyError("again")),
        "revoked": lambda: self.update_state(state="REVOKED"),
        "started": lambda: self.update_state(state="STARTED", meta={"pid": 1}),
        "other": lambda: self.update_state(task_id=f"other-{self.request.id}", state="PROGRESS", meta=1),
        "object": lambda: self.update_state(state="PROGRESS", meta=object()),
        "lower": lambda: self.update_state(state="mine", meta={"a": datetime.date(2030, 1, 1)}),
        "backend": lambda: self.backend.store_result(self.request.id, {"x": 1}, "DIRECT"),
        "backend failure": lambda: self.backend.mark_as_failure(self.request.id, ValueError("direct")),
        "backend started": lambda: self.backend.mark_as_started(self.request.id, where="here"),
    }[kind]
    try:
        update()
    except Exception as error:
        note(self.request.id, "raised", type(error).__name__)
    raise Ignore


@app.task(bind=True)
def reads(self):
    """What a task sees of itself."""
    handle = app.AsyncResult(self.request.id)
    note(self.request.id, handle.state, handle.ready(), self.AsyncResult(self.request.id).status)
    note(self.request.id, self.name, self.__name__, self.__module__, self.__doc__)
    note(self.request.id, app.current_task is None, app.current_worker_task.name, self.app.main)
    sig = self.signature_from_request()
    note(self.request.id, dict(sig.options), sig.args, sig.kwargs, sig.task)
    sig = self.subtask_from_request(args=(1,), kwargs={"a": 1}, countdown=3, queue="elsewhere", priority=4)
    note(self.request.id, dict(sig.options), sig.args, sig.kwargs, sig.task)


@app.task(ignore_result=True)
def wanted_not(fail=False):
    if fail:
        raise ValueError("unwanted")
    return 1


@app.task(ignore_result=True, store_errors_even_if_ignored=True)
def errors_wanted(fail=False):
    if fail:
        raise ValueError("wanted")
    return 1


@app.task(track_started=True, bind=True)
def tracked(self):
    raise Ignore


@app.task(bind=True, acks_late=True)
def late(self, what):
    note(self.request.id, "run", self.request.delivery_info.get("redelivered"))
    if what == "requeue" and store.incr(f"count-{self.request.id}") < 3:
        raise Reject("again", requeue=True)
    if what == "reject":
        raise Reject("no", requeue=False)
    if what == "fail":
        raise ValueError("late")
    return what


@app.task(bind=True, soft_time_limit=0.4, time_limit=30)
def soft_limited(self, catch=False):
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded as error:
        note(self.request.id, "soft", type(error).__name__)
        if catch:
            return "caught"
        raise


@app.task(bind=True, base=Hooked)
def eager_inside(self, what):
    result = hooked.apply((what,))
    note(self.request.id, "eager", result.state, result.result, self.request.id)


@app.task
def errback(request, exc, traceback):
    note(
        request.id,
        "errback",
        exc,
        type(traceback).__name__,
        request.task,
        request.args,
        request.kwargs,
        request.errbacks,
    )


@app.task(bind=True)
def errback_id(self, task_id):
    note(task_id, "errback id", request_of(self))
