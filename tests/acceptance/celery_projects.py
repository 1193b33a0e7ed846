"""Celery parts of public projects in miniature, with Celery's imports: each has the shape of one kind of real code.

No test, and not imported: the tests change the imports and give each project to a worker. URL is filled in.
"""

# ruff: noqa
# mypy: ignore-errors

SENTRY = '''
"""Like Sentry: a subclass of the app, tasks of a class that changes the signature, a decorator of the project."""
from datetime import datetime, timezone
from celery import Celery, Task
from celery.exceptions import MaxRetriesExceededError, Retry

class SentryTask(Task):
    Request = "celery.worker.request:Request"

    def apply_async(self, args=(), kwargs=(), **options):
        kwargs = dict(kwargs or {})
        kwargs["__start_time"] = datetime.now(timezone.utc).timestamp()
        return super().apply_async(args, kwargs, **options)

    def __call__(self, *args, **kwargs):
        started = kwargs.pop("__start_time", None)
        value = super().__call__(*args, **kwargs)
        return value if started is None else {"value": value, "timed": started > 0}

class SentryCelery(Celery):
    task_cls = SentryTask

app = SentryCelery("sentry", broker=URL, backend=URL)

def instrumented_task(name, **options):
    def wrapped(func):
        return app.task(name=name, typing=False, **options)(func)
    return wrapped

@instrumented_task(name="sentry.tasks.store", queue="celery", default_retry_delay=1, max_retries=1)
def store(project_id, event_id=None):
    try:
        if store.request.retries == 0:
            raise ConnectionError("first")
    except ConnectionError as exc:
        store.retry(exc=exc, countdown=0)
    return [project_id, event_id, store.request.retries]
'''

FLASK = '''
"""Like Flask's documentation, and spiffworkflow: tasks that run inside of the context of a web application."""
from contextlib import contextmanager
from celery import Celery, Task, shared_task

class Flask:
    name, depth = "shop", 0
    config = {"CELERY": dict(broker_url=URL, result_backend=URL, task_ignore_result=True)}
    extensions = {}

    @contextmanager
    def app_context(self):
        self.depth += 1
        try:
            yield self
        finally:
            self.depth -= 1

def celery_init_app(app):
    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app

flask_app = Flask()
app = celery_init_app(flask_app)

@shared_task(ignore_result=False)
def depth(a: int, b: int) -> int:
    return [a + b, flask_app.depth]
'''

AIRFLOW = '''
"""Like Airflow and Superset: a class as configuration, names of tasks given apart, states of the project's own."""
from celery import Celery, states
from celery.schedules import crontab
from kombu import Exchange, Queue

class CeleryConfig:
    broker_url = URL
    result_backend = URL
    imports = ()
    worker_prefetch_multiplier = 1
    task_acks_late = True
    task_track_started = True
    task_default_queue = "default"
    task_queues = (Queue("default", Exchange("default"), routing_key="default"), Queue("reports"))
    task_routes = {"airflow.reports.*": {"queue": "reports"}}
    task_annotations = {"airflow.execute": {"rate_limit": "100/s"}}
    beat_schedule = {"reports.prune": {"task": "airflow.reports.prune", "schedule": crontab(minute=10, hour=0)}}

app = Celery("airflow")
app.config_from_object(CeleryConfig)

@app.task(name="airflow.execute", bind=True)
def execute_command(self, command):
    self.update_state(state="QUEUED", meta={"command": command})
    assert states.STARTED in states.UNREADY_STATES
    return [execute_command.rate_limit, self.acks_late, self.request.delivery_info["routing_key"]]

@app.task(name="airflow.reports.prune")
def prune():
    return prune.request.delivery_info["routing_key"]
'''

SALEOR = '''
"""Like Saleor: a class of tasks with restarting hooks, discovered modules, signals of the worker's processes."""
import os
from celery import Celery, signals

started = []

@signals.worker_process_init.connect
def on_process_init(**kwargs):
    started.append(os.getpid())

app = Celery("saleor", broker=URL, backend=URL)
app.autodiscover_tasks(["shop_orders", "shop_checkout"])
app.autodiscover_tasks(packages=["shop_plugins"], related_name="search_tasks")

@app.task(bind=True)
def debug_task(self):
    return [started == [os.getpid()], repr(self.request.id) != "None"]
'''
SALEOR_PACKAGES = {
    "shop_orders/tasks.py": """
from celery import shared_task
from celery.utils.log import get_task_logger
logger = get_task_logger(__name__)

@shared_task(name="orders.expire", autoretry_for=(ValueError,), retry_backoff=True, retry_jitter=False,
             retry_kwargs={"max_retries": 2})
def expire(order):
    logger.info("expiring %s", order)
    if expire.request.retries < 1:
        raise ValueError(order)
    return order
""",
    "shop_checkout/tasks.py": """
from celery import shared_task
@shared_task
def complete(x):
    return x * 2
""",
    "shop_plugins/search_tasks.py": """
from celery import shared_task
@shared_task
def index(x):
    return [x]
""",
}

PROGRESS = '''
"""Like celery-progress and many tutorials: a bar that a web page polls."""
from celery import Celery, Task
from celery.result import AsyncResult

app = Celery("progress", broker=URL, backend=URL)
PROGRESS_STATE = "PROGRESS"

class ProgressRecorder:
    def __init__(self, task):
        self.task = task

    def set_progress(self, current, total, description=""):
        self.task.update_state(state=PROGRESS_STATE, meta={"pending": False, "current": current, "total": total})

class Progress:
    def __init__(self, result):
        self.result = AsyncResult(result) if isinstance(result, str) else result

    def get_info(self):
        response = {"state": self.result.state}
        if self.result.state == "SUCCESS":
            response.update(complete=True, result=self.result.get(), progress=100)
        elif self.result.state == PROGRESS_STATE:
            response.update(complete=False, progress=self.result.info)
        elif self.result.state == "FAILURE":
            response.update(complete=True, result=str(self.result.info))
        return response

@app.task(bind=True)
def work(self, n):
    recorder = ProgressRecorder(self)
    for i in range(n):
        recorder.set_progress(i + 1, n)
    return Progress(self.request.id).get_info()

@app.task(bind=True)
def broken(self):
    raise RuntimeError("broke")
'''

BASES = '''
"""Like the base classes of many services: abstract bases with hooks, that swap arguments and keep connections."""
import abc
from celery import Celery, Task
from celery.signals import task_prerun, task_success

app = Celery("bases", broker=URL, backend=URL)
seen = []

@task_prerun.connect
def before(sender=None, task_id=None, task=None, args=None, kwargs=None, **_):
    seen.append(f"prerun {sender.name} {args}")

@task_success.connect
def success(sender=None, result=None, **_):
    seen.append("success")

class Abstract(Task, abc.ABC):
    abstract = True
    _db = None
    max_retries = 7

    @property
    def db(self):
        if self._db is None:
            self._db = object()
        return self._db

    def before_start(self, task_id, args, kwargs):
        seen.append("before_start")

    def on_success(self, retval, task_id, args, kwargs):
        seen.append("on_success")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        seen.append(f"after_return {status}")

class Swapping(Abstract):
    abstract = True

    def __call__(self, first, second, *args, **kwargs):
        return super().__call__(second, first, *args, **kwargs)

class Registered(Abstract):
    name = "bases.registered"

    def run(self, x):
        return [x, self.db is self.db, self.max_retries]

registered = app.register_task(Registered())

@app.task(base=Swapping, bind=True, name="bases.swapped")
def swapped(self, one, two):
    seen.clear()
    return [one, two, self.db is self.db]

@app.task(name="bases.what")
def what():
    return seen[:-1]
'''

PYDANTIC = '''
"""Like FastAPI services: arguments and results are pydantic's models."""
from celery import Celery
from pydantic import BaseModel

app = Celery("models", broker=URL, backend=URL)

class Order(BaseModel):
    item: str
    count: int = 1

class Invoice(BaseModel):
    total: int
    lines: list[Order]

@app.task(pydantic=True)
def invoice(order: Order, price: int) -> Invoice:
    return Invoice(total=order.count * price, lines=[order])
'''

WORKFLOW = '''
"""Like bookwyrm's and scan services' imports: fan out, collect, and tell somebody when a part has failed."""
from celery import Celery, chain, chord, group, signature, shared_task
from celery.exceptions import Ignore, Reject

app = Celery("workflow", broker=URL, backend=URL)
app.conf.update(task_serializer="json", result_extended=True, result_expires=600)

@app.task
def fetch(n):
    return n

@app.task(bind=True, max_retries=2)
def flaky(self, n):
    try:
        if self.request.retries < 1:
            raise OSError("again")
    except OSError as exc:
        raise self.retry(exc=exc, countdown=0.05 * 2**self.request.retries)
    return n * 10

@app.task
def collect(values, scale=1):
    return sum(values) * scale

@app.task
def explode(n):
    raise ValueError(f"part {n}")

@app.task
def told(request, exc, traceback):
    app.backend.store_result("told-" + request.root_id, str(exc), "SUCCESS")

@app.task(bind=True)
def plan(self, n):
    return self.replace(chord((fetch.s(i) | flaky.s() for i in range(n)), collect.s(scale=2)))

@app.task(bind=True)
def ignored(self):
    self.update_state(state="SKIPPED", meta={"why": "old"})
    raise Ignore()
'''

LEGACY = '''
"""Like code that was written for Celery 3 and 4: old names of settings, class tasks, a late finalize."""
from celery import Celery, current_app, current_task
from celery.signals import celeryd_init, worker_ready
from celery.utils.log import get_task_logger

app = Celery("legacy")
app.conf.update(
    BROKER_URL=URL, CELERY_RESULT_BACKEND=URL, CELERY_TASK_SERIALIZER="json", CELERY_ACCEPT_CONTENT=["json"],
    CELERY_ENABLE_UTC=True, CELERYD_PREFETCH_MULTIPLIER=1, CELERY_ACKS_LATE=True, CELERY_TASK_RESULT_EXPIRES=3600,
)
logger = get_task_logger(__name__)
late = []

@app.on_after_finalize.connect
def setup(sender, **kwargs):
    late.append(sorted(name for name in sender.tasks if name.startswith("legacy.")))
    sender.add_periodic_task(3600.0, sender.signature("legacy.who"), name="hourly")

@celeryd_init.connect
def configure(sender=None, conf=None, **kwargs):
    conf.worker_max_tasks_per_child = 1000

@app.task(name="legacy.who")
def who():
    logger.info("who")
    return [current_task.name, current_app.main, current_task.request.hostname, late[0]]

app.finalize()
'''

LOCKS = '''
"""Like Sefaria's and Pretix's tasks: a decorator below the task's, a lock in Redis, time limits, a rate."""
import functools
import time
import redis
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("locks", broker=URL, backend=URL)
store = redis.Redis.from_url(URL)

def single_instance(timeout):
    def decorator(function):
        @functools.wraps(function)
        def wrapper(self, *args, **kwargs):
            with store.lock(f"lock-{self.name}", timeout=timeout):
                return function(self, *args, **kwargs)
        return wrapper
    return decorator

class ProfiledEventTask(app.Task):
    def __call__(self, *args, **kwargs):
        if "event" in kwargs:
            kwargs["event"] = {"id": kwargs["event"]}
        return super().__call__(*args, **kwargs)

@app.task(bind=True, base=ProfiledEventTask, acks_late=True, rate_limit="100/s")
@single_instance(30)
def quota(self, event=None):
    """Count."""
    return [event, self.__doc__, type(self).__mro__[1].__name__]

@app.task(soft_time_limit=1, time_limit=20)
def slow():
    try:
        time.sleep(15)
    except SoftTimeLimitExceeded:
        return "soft"
'''
