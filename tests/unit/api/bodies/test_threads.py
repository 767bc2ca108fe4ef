"""Threads that read bodies are used again, run beside each other, and end when idle."""

import threading

import pytest

from api.bodies import threads
from api.bodies.threads import ReaderThreads

PATIENCE_S = 20.0


def named(ran: "list[threading.Thread]", done: threading.Event) -> None:
    ran.append(threading.current_thread())
    done.set()


def run(pool: ReaderThreads) -> threading.Thread:
    """Runs some work; returns the thread that did it."""
    ran: list[threading.Thread] = []
    done = threading.Event()
    pool.start(lambda: named(ran, done))
    assert done.wait(PATIENCE_S)
    return ran[0]


def wait_for_idle(pool: ReaderThreads, number: int) -> None:
    """Waits until so many threads are idle."""
    turn = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if len(pool._idle) == number:
            return
        turn.wait(0.01)
    raise AssertionError(f"{len(pool._idle)} idle threads")


def test_an_idle_thread_is_used_again() -> None:
    pool = ReaderThreads()
    first = run(pool)
    wait_for_idle(pool, 1)
    assert run(pool) is first


def test_work_does_not_wait_for_other_work() -> None:
    pool, both = ReaderThreads(), threading.Barrier(3, timeout=PATIENCE_S)
    for _ in range(2):
        pool.start(both.wait)
    both.wait()
    wait_for_idle(pool, 2)


def test_an_idle_thread_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_S", 0.05)
    pool = ReaderThreads()
    thread = run(pool)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert run(pool) is not thread
