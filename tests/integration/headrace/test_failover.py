"""Redis fails over, or takes no writes: every client treats it as an outage, and then finds the master."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError
from redis import Redis

from headrace import startup
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, list_key, make_celery
from headrace.broker.rates import Pace
from headrace.broker.streams import Streams
from headrace.broker.transport import SentinelTransport, Transport
from headrace.config import Settings
from headrace.config.redis_url import RedisUrl
from headrace.connections.redis import Outage, redis_client
from headrace.domain.ids import new_id
from headrace.domain.jobs import StreamPiece
from headrace.domain.queues import CONTROL, Lane, Ticket, queue_name
from headrace.errors import BrokerUnavailable
from tests.chaos import certificates
from tests.chaos.redis_group import RedisGroup
from tests.chaos.tls_proxy import TlsProxy

QUEUE = queue_name("chat", Lane.NORMAL)
#: Of a promotion, with a loaded machine's time.
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def plain_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisGroup]:
    with RedisGroup(tmp_path_factory.mktemp("plain")) as group:
        yield group


@pytest.fixture(scope="module")
def tls_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisGroup]:
    made = certificates.make(tmp_path_factory.mktemp("certificates") / "made")
    with RedisGroup(tmp_path_factory.mktemp("tls"), certificates=made) as group:
        yield group


@pytest.fixture(params=["plain_group", "tls_group"])
def group(request: pytest.FixtureRequest) -> RedisGroup:
    made: RedisGroup = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def sentinel_settings(settings: Settings, group: RedisGroup) -> Settings:
    return settings.model_copy(update={"redis_url": group.url})


def ticket() -> Ticket:
    return Ticket(new_id(), new_id(), QUEUE, Lane.NORMAL, 6, 4, datetime.now(UTC) + timedelta(hours=1))


def works(celery: Celery, client: Redis, admission: Admission) -> bool:
    """Whether each kind of client writes: admission, Celery's messages, streams, the provider's pace."""
    try:
        admission.check_writable()
        admission.commit([ticket()])
        celery.send_task("test", queue=CONTROL)
        streams, job_id = Streams(client), new_id()
        streams.begin(job_id, 1)
        assert streams.publish([StreamPiece(job_id, 1, 0, "text")]) == [True]
        assert Pace(client).ask("model", "call", 1) == 0
    except (BrokerUnavailable, OperationalError):
        return False
    return True


def test_one_sentinel_url_leads_admission_celery_streams_and_pace_to_each_new_master(
    sentinel_settings: Settings, group: RedisGroup
) -> None:
    celery = make_celery("test", sentinel_settings)
    client = redis_client(sentinel_settings)
    admission = Admission(client, ExecuteMessage(celery), reservation_ttl_s=30)
    with celery, client:
        assert works(celery, client, admission)
        assert group.master.ask("LLEN", list_key(QUEUE)) == group.master.ask("LLEN", list_key(CONTROL)) == 1
        group.promote()
        group.rejoin()

        until = time.monotonic() + DEADLINE_S
        while not works(celery, client, admission):
            assert time.monotonic() < until
        before = group.master.ask("LLEN", list_key(QUEUE))
        assert works(celery, client, admission)
        assert group.master.ask("LLEN", list_key(QUEUE)) == before + 1


def test_a_broker_named_by_sentinels_uses_our_transport_and_shows_a_url_that_flower_reads(
    sentinel_settings: Settings, settings: Settings, group: RedisGroup
) -> None:
    sentinels = RedisUrl.parse(group.url).sentinels
    assert sentinels is not None
    with make_celery("test", sentinel_settings).connection() as connection:
        assert isinstance(connection.transport, SentinelTransport)
        assert connection.as_uri() == f"sentinel://:**@127.0.0.1:{sentinels.addresses[0][1]}/0"
    with make_celery("test", settings).connection() as connection:
        assert isinstance(connection.transport, Transport)
        assert connection.as_uri(include_password=True) == settings.redis_url


def test_a_read_only_reply_drops_the_connection(
    redis: Redis, settings: Settings, replica_for_a_while: Callable[[], AbstractContextManager[None]]
) -> None:
    with redis_client(settings) as client:
        first = client.client_id()
        assert client.client_id() == first, "one connection, kept"
        with replica_for_a_while():
            with pytest.raises(Outage):
                client.set("key", "value")
            with pytest.raises(Outage):
                client.register_script("return redis.call('SET', 'key', 'value')")()
            with pytest.raises(Outage), client.pipeline(transaction=True) as pipeline:
                pipeline.set("key", "value").execute()
        assert client.client_id() != first
        assert client.set("key", "value")


def test_readiness_of_the_broker_writes(
    admission: Admission, redis: Redis, replica_for_a_while: Callable[[], AbstractContextManager[None]]
) -> None:
    admission.check_writable()
    with replica_for_a_while(), pytest.raises(BrokerUnavailable, match="read only replica"):
        admission.check_writable()
    admission.check_writable()
    assert redis.dbsize() == 0


def test_full_disk_of_redis_is_an_outage_to_every_client(
    admission: Admission, celery: Celery, redis: Redis, redis_disk_full: Callable[[], AbstractContextManager[None]]
) -> None:
    with redis_disk_full():
        with pytest.raises(BrokerUnavailable, match="MISCONF"):
            admission.check_writable()
        with pytest.raises(BrokerUnavailable, match="MISCONF"):
            admission.commit([ticket()])
        with pytest.raises(OperationalError, match="MISCONF"):
            celery.send_task("test", queue=CONTROL)
    assert works(celery, redis, admission)


def test_a_sentinel_that_is_away_is_passed_over(group: RedisGroup, settings: Settings) -> None:
    url = group.url.replace("@", "@127.0.0.1:1,")
    with redis_client(settings.model_copy(update={"redis_url": url})) as client:
        assert client.set("key", "value")
    with make_celery("test", settings.model_copy(update={"redis_url": url})) as celery:
        celery.send_task("test", queue=CONTROL)


def test_no_sentinel_that_answers_is_an_outage_at_once(settings: Settings, tmp_path: Path) -> None:
    url = "sentinel://127.0.0.1:1,127.0.0.1:2/0?master_name=any"
    began = time.monotonic()
    with redis_client(settings.model_copy(update={"redis_url": url})) as client:
        admission = Admission(client, ExecuteMessage(make_celery("test", settings)), reservation_ttl_s=30)
        with pytest.raises(BrokerUnavailable, match=r"No master found.* 127\.0\.0\.1:1\b.* 127\.0\.0\.1:2\b") as error:
            admission.check_writable()
    assert "redis.client" not in str(error.value), "reasons, and no object of redis-py"
    assert time.monotonic() - began < DEADLINE_S


def test_no_client_speaks_to_the_master_or_a_sentinel_without_tls(tls_group: RedisGroup, settings: Settings) -> None:
    named = settings.model_copy(update={"redis_url": tls_group.url})
    proxies = (tls_group.master.proxy, *tls_group.doors)
    before = [proxy.plain for proxy in proxies if isinstance(proxy, TlsProxy)]
    with make_celery("test", named) as celery, redis_client(named) as client:
        assert works(celery, client, Admission(client, ExecuteMessage(celery), reservation_ttl_s=30))
        with celery.connection() as connection, connection.SimpleQueue(Queue(CONTROL, routing_key=CONTROL)) as queue:
            assert queue.get(timeout=DEADLINE_S).headers["task"] == "test", "kombu's connection that waits"
    assert [proxy.plain for proxy in proxies if isinstance(proxy, TlsProxy)] == before
    assert len(before) == 2


def test_wrong_certificate_is_named_as_the_reason(tls_group: RedisGroup, settings: Settings, tmp_path: Path) -> None:
    others = certificates.make(tmp_path / "others")
    url = tls_group.url.partition("&ssl_ca_certs=")[0] + f"&ssl_ca_certs={others.authority}"
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        startup.check_redis(settings.model_copy(update={"redis_url": url}))
