"""A job's stream on a real Valkey: its numbers, its fence, and what becomes of it when Redis forgets."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from headrace.broker.news import News, channel_of, word_of
from headrace.broker.streams import KEEP_S, RUN_S, Streams
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.ids import new_id
from headrace.domain.jobs import NUMBERS_PER_CLAIM, StreamEvent, StreamPiece
from headrace.domain.queues import KEY_PREFIX
from headrace.errors import BrokerUnavailable
from tests.integration.listening import next_message


@pytest.fixture
def streams(redis: Redis) -> Streams:
    return Streams(redis)


def publish(streams: Streams, job_id: UUID, claim: int, before: str, text: str) -> bool:
    (taken,) = streams.publish([StreamPiece(job_id, claim, len(before.encode()), text)])
    return taken


def heard(streams: Streams, job_id: UUID, after: int = 0) -> str:
    """What a reader has in the end."""
    text = ""
    for event in streams.read(job_id, after):
        text = "" if event.kind == "restart" else text + event.text
    return text


def ttl_s(redis: Redis, job_id: UUID) -> int:
    (key,) = redis.keys(f"*{job_id.hex}*")
    return int(redis.ttl(key))


def test_numbers_grow_and_a_reader_resumes_after_any_of_them(streams: Streams) -> None:
    job_id, before = new_id(), ""
    assert streams.begin(job_id, 1) == ""
    for text in ("Où ", "est ", "l'été? ", "🌊"):
        assert publish(streams, job_id, 1, before, text)
        before += text

    events = streams.read(job_id)

    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= 1
    assert "".join(event.text for event in events) == before
    for i, number in enumerate(numbers):
        assert streams.read(job_id, number) == events[i + 1 :]


def test_a_later_claim_continues_and_the_earlier_one_is_fenced(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    publish(streams, job_id, 1, "", "one ")

    assert streams.begin(job_id, 2) == "one "
    assert not publish(streams, job_id, 1, "one ", "stale")
    assert publish(streams, job_id, 2, "one ", "two")

    assert heard(streams, job_id) == "one two"
    assert streams.begin(job_id, 1) is None
    assert publish(streams, job_id, 2, "one two", "!")


def test_a_claim_that_starts_anew_tells_readers_only_if_there_was_text(streams: Streams) -> None:
    job_id = new_id()
    for claim in (1, 2):
        assert streams.begin(job_id, claim, anew=True) == ""
    assert [event.kind for event in streams.read(job_id)] == ["begin"]
    publish(streams, job_id, 2, "", "first try")

    assert streams.begin(job_id, 3, anew=True) == ""
    assert publish(streams, job_id, 3, "", "second")

    assert [event.kind for event in streams.read(job_id)] == ["begin", "delta", "restart", "delta"]
    assert streams.begin(job_id, 4) == "second"


def test_begin_and_publish_can_be_repeated(streams: Streams) -> None:
    job_id = new_id()
    for _ in range(2):
        assert streams.begin(job_id, 1) == ""
    publish(streams, job_id, 1, "", "é")
    for _ in range(2):
        assert publish(streams, job_id, 1, "é", "é🌊")
    # A reply was lost, and meanwhile more has come.
    assert publish(streams, job_id, 1, "é", "é🌊!")

    assert [event.text for event in streams.read(job_id)] == ["é", "é🌊", "!"]
    for _ in range(2):
        assert streams.begin(job_id, 2, anew=True) == ""
    assert [event.kind for event in streams.read(job_id)] == ["delta", "delta", "delta", "restart", "begin"]


def test_what_is_more_than_text_is_told_in_its_place_and_never_twice(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    pieces = [
        StreamPiece(job_id, 1, 0, "{1}\n", "logprobs"),
        StreamPiece(job_id, 1, 4, "é"),
        StreamPiece(job_id, 1, 6, "{2}\n", "logprobs"),
        StreamPiece(job_id, 1, 10, " b"),
    ]
    assert streams.publish(pieces[:2]) == [True, True]
    # The reply was lost, and meanwhile more has come.
    for _ in range(2):
        assert streams.publish(pieces) == [True] * 4

    told = [("logprobs", "{1}\n"), ("delta", "é"), ("logprobs", "{2}\n"), ("delta", " b")]
    assert [(event.kind, event.text) for event in streams.read(job_id)] == told


def test_numbers_leave_room_where_reasoning_begins_or_ends(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    told = (("reasoning", "Hm. "), ("reasoning", "So: "), ("logprobs", "{1}\n"), ("delta", "one "), ("delta", "two"))
    before = 0
    for kind, text in told:
        assert streams.publish([StreamPiece(job_id, 1, before, text, kind)]) == [True]
        before += len(text)
    streams.begin(job_id, 2)
    assert publish(streams, job_id, 2, "", "again")

    events = streams.read(job_id)
    assert [(event.kind, event.text) for event in events] == [*told, ("restart", ""), ("delta", "again")]
    assert [event.number for event in events] == [7, 8, 14, 15, 16, 1_000_001, 1_000_007]


def test_numbers_leave_room_after_a_restart_whose_claim_has_said_nothing(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    streams.publish([StreamPiece(job_id, 1, 0, "Hm. ", "reasoning")])
    for claim in (2, 3):
        assert streams.begin(job_id, claim) == ""
    assert publish(streams, job_id, 3, "", "one")

    *_, restart, begin, piece = streams.read(job_id)
    assert (restart.kind, begin.kind, piece.kind) == ("restart", "begin", "delta")
    assert piece.number - begin.number > 5


def test_what_is_more_than_text_is_not_continued(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    streams.publish([StreamPiece(job_id, 1, 0, "{1}\n", "logprobs"), StreamPiece(job_id, 1, 4, "one")])

    for _ in range(2):
        assert streams.begin(job_id, 2) == ""
    assert publish(streams, job_id, 2, "", "two")

    kinds = [event.kind for event in streams.read(job_id)]
    assert kinds == ["logprobs", "delta", "restart", "begin", "delta"]
    assert heard(streams, job_id) == streams.begin(job_id, 3) == "two"


def test_an_event_has_the_tokens_of_its_answer_so_far(streams: Streams, redis: Redis) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    pieces = [StreamPiece(job_id, 1, 0, "one ", tokens=2), StreamPiece(job_id, 1, 4, "two", tokens=5)]
    streams.publish(pieces)
    # As an older release wrote it.
    redis.xadd(f"{KEY_PREFIX}stream:{job_id.hex}", {"kind": "delta", "text": "!", "claim": "1", "bytes": "8"}, id="9-0")
    assert [event.tokens for event in streams.read(job_id)] == [2, 5, 0]


def test_several_answers_are_told_apart_and_not_continued(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    streams.publish([StreamPiece(job_id, 1, 0, "zero"), StreamPiece(job_id, 1, 4, "{1}\n", "logprobs", 12)])
    told = [(event.kind, event.choice, event.text) for event in streams.read(job_id)]
    assert told == [("delta", 0, "zero"), ("logprobs", 12, "{1}\n")]
    assert streams.begin(job_id, 2) == ""


def test_a_wiped_stream_takes_no_more_of_its_claim(streams: Streams, redis: Redis) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    publish(streams, job_id, 1, "", "lost ")
    redis.flushall()

    assert not publish(streams, job_id, 1, "lost ", "kept")
    assert streams.read(job_id) == []
    assert not redis.exists(f"{KEY_PREFIX}stream:{job_id.hex}")


def test_after_a_wipe_the_next_claim_starts_again_and_numbers_still_grow(streams: Streams, redis: Redis) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    for i in range(20):
        publish(streams, job_id, 1, "x" * i, "x")
    last = streams.read(job_id)[-1].number
    redis.flushall()

    assert streams.begin(job_id, 2) == ""
    publish(streams, job_id, 2, "", "again")

    assert [(event.kind, event.text) for event in streams.read(job_id, last)] == [("restart", ""), ("delta", "again")]


def test_text_that_would_follow_a_hole_is_dropped(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)

    assert not publish(streams, job_id, 1, "missing", "text")

    assert streams.read(job_id) == []


def test_many_jobs_are_published_in_one_command(streams: Streams, redis: Redis) -> None:
    job_ids = [new_id() for _ in range(30)]
    for job_id in job_ids[:-1]:
        streams.begin(job_id, 1)
    streams.publish([])  # Loads the script.
    before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]

    taken = streams.publish([StreamPiece(job_id, 1, 0, job_id.hex) for job_id in job_ids])

    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
    assert taken == [True] * 29 + [False]
    assert [heard(streams, job_id) for job_id in job_ids[:-1]] == [job_id.hex for job_id in job_ids[:-1]]


def test_a_stream_is_forgotten_soon_after_its_end_and_late_without_one(streams: Streams, redis: Redis) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    assert RUN_S - 5 < ttl_s(redis, job_id) <= RUN_S
    redis.expire(redis.keys(f"*{job_id.hex}*")[0], 10)
    publish(streams, job_id, 1, "", "text")
    assert RUN_S - 5 < ttl_s(redis, job_id) <= RUN_S

    streams.end(job_id)

    assert KEEP_S - 5 < ttl_s(redis, job_id) <= KEEP_S
    assert redis.exists(f"{KEY_PREFIX}stream:{job_id.hex}")


def test_every_key_has_the_hash_tag(streams: Streams, redis: Redis) -> None:
    streams.begin(new_id(), 1)
    assert all(key.startswith("{headrace}:") for key in redis.scan_iter())


def test_readers_are_told_of_each_change(streams: Streams, redis: Redis) -> None:
    job_id, other = new_id(), new_id()
    channel = channel_of(new_id())
    listener = redis.pubsub()
    listener.subscribe(channel)
    assert next_message(listener)["type"] == "subscribe"
    News(redis).listen([job_id], channel)

    streams.begin(job_id, 1)
    publish(streams, job_id, 1, "", "text")
    streams.begin(other, 1)
    publish(streams, other, 1, "", "text of a job without listeners")
    streams.begin(job_id, 2, anew=True)

    # Of the text and of the restart: a claim that begins tells nothing yet.
    told = [next_message(listener)["data"] for _ in range(2)]
    assert told == [f"piece {job_id.hex} 0 2 0 delta text", f"more {job_id.hex}"]
    assert not listener.get_message(timeout=0.1)
    listener.close()


def test_listeners_are_told_the_pieces_themselves_in_a_row(streams: Streams, redis: Redis) -> None:
    job_id, channel = new_id(), channel_of(new_id())
    with redis.pubsub() as listener:
        listener.subscribe(channel)
        assert next_message(listener)["type"] == "subscribe"
        News(redis).listen([job_id], channel)
        streams.begin(job_id, 1)
        texts = ("Où est\n", " l'été? 🌊")
        pieces = [
            StreamPiece(job_id, 1, 0, texts[0], tokens=2),
            StreamPiece(job_id, 1, len(texts[0].encode()), texts[1], "reasoning", 3, tokens=9),
        ]
        streams.publish(pieces)
        # Its reply was lost: what is known is not told again.
        streams.publish(pieces)
        words = [word_of(next_message(listener)["data"]) for _ in pieces]
        assert not listener.get_message(timeout=0.1)

    told = [word.piece for word in words if word.piece]
    assert [piece.event for piece in told] == streams.read(job_id)
    assert [piece.after for piece in told] == [0, told[0].event.number]
    assert {(word.job_id, word.has_ended) for word in words} == {(job_id, False)}


def test_a_long_piece_and_a_listener_of_an_older_release_are_told_of_more(streams: Streams, redis: Redis) -> None:
    job_id, channel, older = new_id(), channel_of(new_id()), f"{KEY_PREFIX}news:{new_id().hex}"
    with redis.pubsub() as listener:
        listener.subscribe(channel, older)
        for _ in range(2):
            assert next_message(listener)["type"] == "subscribe"
        News(redis).listen([job_id], channel)
        News(redis).listen([job_id], older)
        streams.begin(job_id, 1)
        publish(streams, job_id, 1, "", "short")
        publish(streams, job_id, 1, "short", "é" * 3000)
        told = [next_message(listener) for _ in range(4)]

    more = f"more {job_id.hex}"
    by_channel = {name: [each["data"] for each in told if each["channel"] == name] for name in (channel, older)}
    assert by_channel == {channel: [f"piece {job_id.hex} 0 2 0 delta short", more], older: [more] * 2}


def test_two_claims_that_publish_at_once_never_mix(redis_url: str, redis: Redis) -> None:
    job_id, takes_over = new_id(), threading.Event()

    def claim(number: int) -> str:
        streams = Streams(redis_client(Settings.load(redis_url=redis_url)))
        if number > 1:
            assert takes_over.wait(10)
        text = streams.begin(job_id, number)
        assert text is not None
        for i in range(300):
            word = f"{number}.{i} "
            if not publish(streams, job_id, number, text, word):
                return text
            text += word
            if i == 50:
                takes_over.set()
        return text

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(claim, (1, 2))

    assert heard(Streams(redis), job_id) == second
    # What the first heard of itself before the fence is what the second continued.
    assert second == first + "".join(f"2.{i} " for i in range(300))


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish", "publish", "repeat", "stale", "claim", "anew", "wipe"]),
        st.text(max_size=4),
    ),
    max_size=25,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS)
def test_a_reader_always_has_a_beginning_of_what_the_claim_has_written(
    streams: Streams, redis: Redis, actions: list[tuple[str, str]]
) -> None:
    job_id, claim, written, last_piece, reader, seen = new_id(), 1, "", ("", ""), "", 0
    streams.begin(job_id, claim)
    for action, text in actions:
        match action:
            case "publish":
                last_piece = (written, text)
                written += text
                publish(streams, job_id, claim, *last_piece)
            case "repeat":
                publish(streams, job_id, claim, *last_piece)
            case "stale":
                assert not publish(streams, job_id, claim - 1, written, text)
            case "claim" | "anew":
                claim += 1
                prefix = streams.begin(job_id, claim, anew=action == "anew")
                assert prefix is not None
                written, last_piece = prefix, (prefix, "")
            case "wipe":
                redis.flushall()
        for event in streams.read(job_id, seen):
            assert event.number > seen
            seen = event.number
            reader = "" if event.kind == "restart" else reader + event.text
        assert written.startswith(reader)


def test_the_numbers_of_a_claim_are_above_those_of_any_older_claim_that_redis_has_lost(
    streams: Streams, redis: Redis
) -> None:
    job_id = new_id()
    key = f"{KEY_PREFIX}stream:{job_id.hex}"
    streams.begin(job_id, 1)
    publish(streams, job_id, 1, "", "one ")
    redis.copy(key, "kept")
    publish(streams, job_id, 1, "one ", "two")
    [first, lost] = streams.read(job_id)
    redis.copy("kept", key, replace=True)

    assert streams.begin(job_id, 2) == "one "
    publish(streams, job_id, 2, "one ", "three")

    begin, piece = streams.read(job_id, first.number)
    assert (begin.kind, piece.text) == ("begin", "three")
    assert begin.number > lost.number + NUMBERS_PER_CLAIM - 10
    # It does not follow what a reader has that heard of the lost one.
    assert streams.read(job_id, lost.number) == []
    streams.begin(job_id, 3, anew=True)
    assert [event.kind for event in streams.read(job_id, lost.number)] == ["restart"]


def test_redis_that_is_gone_is_reported_not_waited_for() -> None:
    gone = Streams(redis_client(Settings.load(redis_url="redis://127.0.0.1:1/0")))
    job_id = new_id()
    calls = (
        lambda: gone.begin(job_id, 1),
        lambda: gone.publish([StreamPiece(job_id, 1, 0, "text")]),
        lambda: gone.end(job_id),
        lambda: gone.read(job_id),
    )
    for call in calls:
        with pytest.raises(BrokerUnavailable):
            call()


def test_an_event_says_what_readers_need(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    publish(streams, job_id, 1, "", "text")
    (event,) = streams.read(job_id)
    assert event == StreamEvent(event.number, "delta", "text")


def test_numbers_leave_room_at_each_call_of_a_tool(streams: Streams) -> None:
    job_id = new_id()
    streams.begin(job_id, 1)
    told = (("delta", "I "), ("tool_call", "{1}"), ("tool_call", "{2}"), ("delta", "call."))
    before = 0
    for kind, text in told:
        assert streams.publish([StreamPiece(job_id, 1, before, text, kind)]) == [True]
        before += len(text)
    assert [(event.kind, event.text) for event in streams.read(job_id)] == list(told)
    assert [event.number for event in streams.read(job_id)] == [2, 8, 14, 20]
    assert streams.begin(job_id, 2) == "", "an answer with calls is not continued"
