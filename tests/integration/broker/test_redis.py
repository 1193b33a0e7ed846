"""Another Redis as the broker: batches in order, priorities, exchanges as kombu's consumers bind them."""

import kombu
import pytest
import redis

from beatd.broker import Address
from beatd.broker.kombu import KombuPublisher
from beatd.broker.redis import RedisPublisher
from beatd.exceptions import BrokerError
from beatd.message.protocol import open_envelope
from tests.integration.broker.conftest import parcel


@pytest.fixture(params=[RedisPublisher, KombuPublisher], ids=["native", "kombu"])
def publisher(request, redis_url):
    publisher = request.param(redis_url)
    yield publisher
    publisher.close()


@pytest.fixture
def take(redis_url):
    """``take("queue")``: the ids of what a kombu consumer gets from it."""
    connection = kombu.Connection(redis_url)

    def ids(queue):
        simple = connection.SimpleQueue(queue, no_ack=True)
        with simple:
            return [simple.get_nowait().headers["id"] for _ in range(simple.qsize())]

    yield ids
    connection.release()


def test_a_batch_arrives_in_order(publisher, take):
    ids = [f"id-{number}" for number in range(200)]
    assert publisher.publish_many([parcel(each, "q") for each in ids]) == []
    assert publisher.depth("q") == 200
    assert take("q") == ids


def test_several_queues_and_priorities_in_one_batch(publisher, take):
    batch = [parcel("a", "q"), parcel("late", "q", priority=9), parcel("b", "other"), parcel("c", "q")]
    assert publisher.publish_many(batch) == []
    assert (publisher.depth("q"), publisher.depth("other"), publisher.depth("none")) == (3, 1, 0)
    of_q, of_none, of_other = publisher.waiting(["q", "none", "other"])
    assert (of_q.messages, of_none.messages, of_other.messages) == (3, 0, 1)
    if isinstance(publisher, RedisPublisher):  # kombu would have to take them out
        assert [open_envelope(raw).id for raw in of_q.next] == ["a", "late"]
    assert take("q") == ["a", "c", "late"]


@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_an_exchange_reaches_what_is_bound_to_it(publisher, redis_url, take, kind):
    pattern = "reports.*" if kind == "topic" else "reports.daily"
    exchange = kombu.Exchange("x", type=kind)
    with kombu.Connection(redis_url) as connection:
        for name in ("one", "two"):
            kombu.Queue(name, exchange, routing_key=pattern)(connection.channel()).declare()
    native = RedisPublisher(redis_url)
    assert native.bound(Address("reports.daily", "x")) == ["one", "two"]
    assert native.bound(Address("other", "x")) == ["other"]
    native.close()
    if isinstance(publisher, RedisPublisher):
        assert publisher.publish_many([parcel("a", exchange="x", key="reports.daily")]) == []
        assert (take("one"), take("two")) == (["a"], ["a"])


def test_what_nothing_is_bound_to_goes_to_the_queue_of_that_name_and_is_said_once(redis_url, take, caplog):
    publisher = RedisPublisher(redis_url)
    publisher.publish_many([parcel("a", exchange="x", key="k"), parcel("b", exchange="x", key="k")])
    publisher.publish_many([parcel("c", exchange="x", key="k")])
    assert take("k") == ["a", "b", "c"]
    assert [record.event for record in caplog.records] == ["exchange_unbound"]
    publisher.close()


def test_a_broker_that_is_away_is_an_error_and_then_is_not(publisher, redis_server, take):
    assert publisher.publish_many([parcel("a", "q")]) == []
    redis_server.kill()
    with pytest.raises(BrokerError, match="broker"):
        publisher.publish_many([parcel("b", "q")])
    redis_server.start()
    assert publisher.publish_many([parcel("c", "q")]) == []
    assert take("q") == ["c"]


def test_a_transport_that_does_not_exist_is_said():
    with pytest.raises(BrokerError, match="broker nonsense://u:\\*\\*\\*@h: No such transport: nonsense"):
        KombuPublisher("nonsense://u:secret@h")


def test_kombus_memory_transport_takes_what_others_take():
    publisher = KombuPublisher("memory://")
    assert publisher.publish_many([parcel("a", "memory-q"), parcel("b", "memory-q")]) == []
    assert publisher.depth("memory-q") == 2
    assert publisher.depth("memory-none") == 0
    publisher.close()


@pytest.mark.parametrize("kind", [RedisPublisher, KombuPublisher], ids=["native", "kombu"])
def test_a_queue_that_refuses_costs_its_own_messages_only(kind, redis_url, take):
    with redis.Redis.from_url(redis_url) as admin:
        admin.hset("bad", "a", "1")
    publisher = kind(redis_url)
    batch = [parcel("a", "q"), parcel("b", "bad"), parcel("c", "q"), parcel("d", "other")]
    [refused] = publisher.publish_many(batch)
    publisher.close()
    assert (refused.number, "WRONGTYPE" in refused.reason) == (1, True)
    assert set(take("q")) == {"a", "c"}
    assert set(take("other")) == {"d"}


def test_an_exchange_that_cannot_be_looked_up_costs_its_own_messages_only(redis_url, take):
    with redis.Redis.from_url(redis_url) as admin:
        admin.set("_kombu.binding.x", "mine")
    publisher = RedisPublisher(redis_url)
    [refused] = publisher.publish_many([parcel("a", "q"), parcel("b", exchange="x", key="k")])
    publisher.close()
    assert refused.number == 1
    assert take("q") == ["a"]


@pytest.mark.parametrize("binding", [b"k\x1f\x1fk", b"k\x06\x16(\x06\x16k", b"\xff\x06\x16\x06\x16\xff"])
def test_an_exchange_with_odd_bindings_costs_its_own_messages_only(redis_url, take, binding):
    """The messages of an outbox: one that no attempt can place must not keep the others in there for ever."""
    with redis.Redis.from_url(redis_url) as admin:
        admin.sadd("_kombu.binding.odd", binding)
    publisher = RedisPublisher(redis_url)
    batch = [parcel("a", "q"), parcel("b", exchange="odd", key="k"), parcel("c", "q")]
    refused = publisher.publish_many(batch)
    publisher.close()
    assert take("q") == ["a", "c"]
    assert [one.number for one in refused] == ([] if binding[0] == 0xFF else [1])


class ServiceError(Exception):
    """An answer of a cloud service as boto raises it; its classes of errors are none of kombu's transport."""

    def __init__(self, status, code):
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def raising(publisher, error):
    """Let a publisher raise for the message ``bad``."""
    publish = publisher._publish

    def publish_or_raise(outgoing, *, retry):
        if outgoing.message.id == "bad":
            raise error
        publish(outgoing, retry=retry)

    publisher._publish = publish_or_raise
    return publisher


@pytest.mark.parametrize("code", ["InvalidParameterValue", "AWS.SimpleQueueService.NonExistentQueue"])
def test_a_message_that_a_service_refuses_costs_itself_only(code):
    publisher = raising(KombuPublisher("memory://"), ServiceError(400, code))
    batch = [parcel("a", "service-q"), parcel("bad", "service-q"), parcel("b", "service-q")]
    [refused] = publisher.publish_many(batch)
    assert (refused.number, code in refused.reason) == (1, True)
    assert publisher.depth("service-q") >= 2
    publisher.close()


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(403, "AccessDenied"),
        ServiceError(400, "ThrottlingException"),
        ServiceError(503, "x"),
        KeyError("x"),
    ],
)
def test_an_error_that_no_transport_names_is_one_of_the_broker(error):
    publisher = raising(KombuPublisher("memory://"), error)
    with pytest.raises(BrokerError, match="broker memory://"):
        publisher.publish_many([parcel("bad", "named-q")])
    publisher.close()


def test_a_slow_broker_gets_smaller_batches_until_it_is_quick():
    publisher = KombuPublisher("memory://", within_s=0.0)
    batch = [parcel(str(number), "slow") for number in range(8)]
    with pytest.raises(BrokerError, match="1 of 8 messages"):
        publisher.publish_many(batch)
    assert publisher.batch == 1
    assert publisher.publish_many(batch[: publisher.batch]) == []
    publisher._within_s = 3600.0
    for _ in range(3):
        assert publisher.publish_many(batch[: publisher.batch]) == []
    assert publisher.batch == 8
    publisher.close()
