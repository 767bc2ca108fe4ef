"""A sentence embedder by itself, in a process of its own: vLLM's offline `LLM.embed` with an embedding model.

Reads one JSON object a line, `{"texts": [...]}`, and writes `{"vectors": [[...], ...]}`; a first line says that the
model is loaded. Its engine arguments are those of a Headrace worker of the same pool.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from headrace.config import Settings
from peers.json_peer import answering
from workers.engines.vllm.settings import arguments, environment


def main() -> None:
    """Load, then answer line by line until the input ends."""
    pool = Settings.load(engine="vllm").served_pool
    out = answering()
    with TemporaryDirectory(prefix="headrace-embedder-") as folder, environment(pool, Path(folder)):
        from vllm import LLM, EngineArgs

        llm = LLM.from_engine_args(EngineArgs(**arguments(pool)))
        print(json.dumps({"ready": True}), file=out, flush=True)
        for line in sys.stdin:
            texts = json.loads(line)["texts"]
            # Of a longer text, the beginning.
            cut = {"truncate_prompt_tokens": pool.max_model_tokens}
            outputs = llm.embed(texts, use_tqdm=False, tokenization_kwargs=cut)
            print(json.dumps({"vectors": [each.outputs.embedding for each in outputs]}), file=out, flush=True)


if __name__ == "__main__":
    main()
