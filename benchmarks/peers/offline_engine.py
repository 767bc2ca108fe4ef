"""vLLM's own offline `LLM.generate`, in a process of its own: what the queue is compared with.

Reads one JSON object a line, `{"prompts": [[token, ...], ...], "max_tokens": n}`, and writes `{"seconds", "tokens"}`;
a first line says that the model is loaded. Its engine arguments are those of Headrace's worker, from the same settings.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headrace.config import Settings
from peers.json_peer import answering
from workers.engines.vllm.settings import arguments, environment


def main() -> None:
    """Load, then answer line by line until the input ends."""
    pool = Settings.load(engine="vllm").served_pool
    out = answering()
    with TemporaryDirectory(prefix="headrace-offline-") as folder, environment(pool, Path(folder)):
        from vllm import LLM, EngineArgs

        llm = LLM.from_engine_args(EngineArgs(**arguments(pool)))
        print(json.dumps({"ready": True}), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(generate(llm, json.loads(line))), file=out, flush=True)


def generate(llm: Any, asked: dict[str, Any]) -> dict[str, float]:
    """All prompts in one call, as greedily as the jobs."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=asked["max_tokens"])
    prompts = [{"prompt_token_ids": tokens} for tokens in asked["prompts"]]
    began = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "tokens": sum(len(output.outputs[0].token_ids) for output in outputs)}


if __name__ == "__main__":
    main()
