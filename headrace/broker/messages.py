"""Celery: the app's configuration, and the message that represents a job in its queue.

Imports no task code: producers name tasks by constant.
"""

import json
from typing import Any
from uuid import UUID

from celery import Celery
from kombu.entity import Queue

from headrace.broker import transport
from headrace.config import Settings
from headrace.config.redis_url import RedisUrl
from headrace.domain.ids import parse_id, show_id
from headrace.domain.queues import CONTROL, DELIVER, EXECUTE, KEY_PREFIX, OVERFLOW, WEBHOOKS, Ticket, lane_queues
from headrace.errors import NotFound

#: Seconds. It must exceed kombu's one-second BRPOP, and bounds how long a hung Redis can block a publish.
SOCKET_TIMEOUT_S = 5


def make_celery(name: str, settings: Settings) -> Celery:
    """A Celery app with Headrace's configuration; worker processes register their tasks on it."""
    transport.use()
    where = RedisUrl.parse(settings.redis_url)
    celery = Celery(name, broker=where.url, set_as_current=False)
    celery.conf.update(_configuration(settings, where))
    return celery


def _configuration(settings: Settings, where: RedisUrl) -> dict[str, Any]:
    pools = (*settings.pools, OVERFLOW)
    names = [queue for pool in pools for queue in lane_queues(pool)] + [WEBHOOKS, CONTROL]
    return {
        "task_queues": [Queue(name, routing_key=name) for name in names],
        "task_create_missing_queues": False,
        "task_default_queue": CONTROL,
        # Results are in Postgres; a result backend would halve the throughput and keep answers in Redis.
        "task_ignore_result": True,
        # The claim in Postgres is the acknowledgement. A worker takes one message per free slot. The rest stays in
        # the list, where it counts against the caps, can expire, and can go to any free worker.
        "task_acks_late": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_hijack_root_logger": False,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "broker_use_ssl": where.tls,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2},
        "broker_transport_options": {
            "global_keyprefix": KEY_PREFIX,
            "priority_steps": [0],
            "queue_order_strategy": transport.lane_cycles(settings),
            # With it, kombu keeps a copy of each taken message in Redis, and counts the message as held until its
            # removal. A lost removal would cost a worker a slot for good. Jobs have their claims, and ticks expire.
            "ack_emulation": False,
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            **_sentinel_options(where),
        },
    }


def _sentinel_options(where: RedisUrl) -> dict[str, Any]:
    """The options that Headrace's transport reads."""
    if where.sentinels is None:
        return {}
    return {"sentinels": where.sentinels, "master_name": where.sentinels.master_name}


def list_key(queue: str) -> str:
    """The Redis list in which kombu keeps a queue's messages."""
    return KEY_PREFIX + queue


class ExecuteMessage:
    """Writes the Celery message of a ticket. One ticket always gives the same bytes, so that its message can be found.

    The message equals what `apply_async` would send except for random ids, and takes a fortieth of the time: Celery
    makes the envelope once per queue, and placeholders in it are filled in.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._envelopes: dict[str, str] = {}

    def of(self, ticket: Ticket) -> str:
        """The message of this ticket, in the format of kombu's Redis transport."""
        envelope = self._envelopes.get(ticket.queue)
        if envelope is None:
            envelope = self._envelopes[ticket.queue] = self._envelope(ticket.queue)
        number = str(ticket.enqueue_no)
        message = envelope.replace("@JOB@", show_id(ticket.job_id)).replace("@ENQUEUE_NO@", number)
        message = message.replace('"@APP@"', f'"{ticket.app_id.hex}"').replace('"@LANE@"', f'"{ticket.lane}"')
        message = message.replace('"@PROMPT_TOKENS@"', str(ticket.prompt_tokens))
        # Without a number of answers where there is one: so the bytes are those that older processes write.
        several = f',"n":{ticket.n}' if ticket.n > 1 else ""
        message = message.replace('"@MAX_TOKENS@"', f"{ticket.max_tokens}{several}")
        message = message.replace('"@ALONE@"', str(ticket.alone).lower())
        return message.replace('"@START_BY@"', str(int(ticket.start_by.timestamp())))

    def _envelope(self, queue: str) -> str:
        made = self._celery.amqp.create_task_message(
            "@JOB@",
            EXECUTE,
            ("@JOB@", "@ENQUEUE_NO@"),
            {},
            ignore_result=True,
            origin="headrace",
            reply_to="",
        )
        routing = {
            "app": "@APP@",
            "lane": "@LANE@",
            "prompt_tokens": "@PROMPT_TOKENS@",
            "max_tokens": "@MAX_TOKENS@",
            "alone": "@ALONE@",
            "start_by": "@START_BY@",
        }
        envelope = {
            "body": json.dumps(made.body).replace('"@ENQUEUE_NO@"', "@ENQUEUE_NO@"),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {**made.headers, "headrace": routing},
            "properties": {
                **made.properties,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "utf-8",
                "delivery_tag": "@JOB@.@ENQUEUE_NO@",
            },
        }
        # In the arguments that Celery shows to operators the number has no quotes, as in the body.
        return json.dumps(envelope, separators=(",", ":")).replace("'@ENQUEUE_NO@'", "@ENQUEUE_NO@")


def named_in(message: str) -> tuple[UUID, int] | None:
    """The job and `enqueue_no` of a message that Headrace wrote; None for any other message."""
    try:
        return stay_of(json.loads(message)["properties"]["delivery_tag"])
    except (ValueError, KeyError, TypeError):
        return None


def stay_of(delivery_tag: str) -> tuple[UUID, int] | None:
    """The job and `enqueue_no` of a message by its delivery tag; None for the tag of any other message."""
    try:
        job, _, number = delivery_tag.partition(".")
        return parse_id(job), int(number)
    except (ValueError, AttributeError, NotFound):
        return None


class DeliverMessage:
    """Writes the Celery message of one try of a delivery, in the decoded form that a taker gives the transport."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def of(self, delivery_id: UUID, tries: int) -> dict[str, Any]:
        """The message of this try."""
        task_id = f"evt_{delivery_id.hex}.{tries}"
        args = (delivery_id.hex, tries)
        made = self._celery.amqp.create_task_message(task_id, DELIVER, args, {}, ignore_result=True, origin="headrace")
        return {
            "body": json.dumps(made.body),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": made.headers,
            "properties": {
                **made.properties,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": WEBHOOKS},
                "priority": 0,
                "body_encoding": "utf-8",
                "delivery_tag": task_id,
            },
        }
