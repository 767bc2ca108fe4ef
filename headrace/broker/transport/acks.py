"""kombu's acknowledgements in Redis, except that a lost one costs a consumer no place."""

from typing import Any

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Counts the messages that a consumer holds, and keeps them in Redis until they are acknowledged."""

    def ack(self, delivery_tag: Any) -> None:
        """Acknowledge a message. If its connection breaks, the message is not held any more, but stays in Redis.

        kombu would count it as held until the consumer's own connection breaks too, and that may never be: a consumer
        with one place, such as a control worker, would take nothing more. Redis gives the message to a consumer again
        after `visibility_timeout`. By then a tick has expired.
        """
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except self.channel.connection_errors:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise
