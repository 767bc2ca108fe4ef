"""vLLM's own `AsyncLLM` under a load, in a process of its own: what the queue is compared with.

Reads one JSON object a line, a `mixed_load.Load`, and writes what was seen of it, a `mixed_load.Seen`; a first line
says that the model is loaded. Its engine arguments and priorities are those of Headrace's worker.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headrace.config import Settings
from headrace.domain.queues import Lane
from peers.json_peer import answering
from peers.mixed_load import Ask, Load, Seen, Span
from workers.engines.vllm.settings import arguments, environment


class Side:
    """The engine, and what it is asked."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._numbers = count()
        self._batch: set[str] = set()
        self._is_over = False

    async def run(self, load: Load) -> Seen:
        """One load from its beginning to its end; what is left of the batch load is aborted."""
        self._is_over = False
        asks = cycle(load.batch)
        streams = [asyncio.create_task(self._keep_asking(asks)) for _ in range(load.outstanding)]
        await asyncio.sleep(load.ramp_s)
        began = time.time()
        await asyncio.sleep(load.alone_s)
        beside = time.time()
        answers = await self._ask_steadily(load.interactive, load.interval_s)
        ended = time.time()
        first_s = await asyncio.gather(*answers)
        self._is_over = True
        await self._llm.abort(list(self._batch))
        spans = [span for stream in streams for span in await stream]
        return Seen(first_s, spans, (began, beside), (beside, ended))

    async def _ask_steadily(self, asks: Sequence[Ask], interval_s: float) -> list[asyncio.Task[float]]:
        answers = []
        began = time.monotonic()
        for no, ask in enumerate(asks, 1):
            answers.append(asyncio.create_task(self._first_s(ask)))
            await asyncio.sleep(began + no * interval_s - time.monotonic())
        return answers

    async def _first_s(self, ask: Ask) -> float:
        """Ask, and listen to the end; seconds to the first text."""
        from vllm.sampling_params import RequestOutputKind

        first_s, number = 0.0, str(next(self._numbers))
        began = time.perf_counter()
        async for output in self._generate(ask, number, Lane.HIGH, RequestOutputKind.DELTA):
            if output.outputs[0].text and not first_s:
                first_s = time.perf_counter() - began
        return first_s

    async def _keep_asking(self, asks: Iterator[Ask]) -> list[Span]:
        """One batch stream: when an answer has ended, the next is asked for."""
        from vllm.sampling_params import RequestOutputKind

        spans = []
        while not self._is_over:
            began, number = time.time(), str(next(self._numbers))
            self._batch.add(number)
            async for output in self._generate(next(asks), number, Lane.BATCH, RequestOutputKind.FINAL_ONLY):
                if tokens := len(output.outputs[0].token_ids):
                    spans.append(Span(began + output.metrics.first_token_latency, time.time(), tokens))
            self._batch.discard(number)
        return spans

    def _generate(self, ask: Ask, number: str, lane: Lane, kind: Any) -> Any:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=ask.max_tokens, output_kind=kind)
        return self._llm.generate({"prompt_token_ids": ask.tokens}, params, number, priority=lane.priority)


async def serve(llm: Any, out: Any) -> None:
    """Answer line by line until the input ends."""
    side = Side(llm)
    while line := await asyncio.to_thread(sys.stdin.readline):
        seen = await side.run(Load.from_json(json.loads(line)))
        print(json.dumps(seen.to_json()), file=out, flush=True)


def main() -> None:
    """Load, then answer."""
    pool = Settings.load(engine="vllm").served_pool
    out = answering()
    with TemporaryDirectory(prefix="headrace-async-") as folder, environment(pool, Path(folder)):
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments(pool)))
        print(json.dumps({"ready": True}), file=out, flush=True)
        try:
            asyncio.run(serve(llm, out))
        finally:
            llm.shutdown(timeout=20)


if __name__ == "__main__":
    main()
