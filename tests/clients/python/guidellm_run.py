"""GuideLLM."""

import json
import subprocess
import sys
from pathlib import Path

from cells import KEY, MODEL, URL, run
from tiny_tokenizer import write_tokenizer

# configure
# guidellm run --backend kind=openai_http,target=http://127.0.0.1:8080,api_key=KEY,model=MODEL \
#     --data kind=synthetic_text,prompt_tokens=32,output_tokens=16 --profile kind=concurrent,streams=4 \
#     --constraint kind=max_requests,count=100
# end


def benchmark() -> None:
    target = URL.removesuffix("/v1")
    words = [
        *(str(Path(sys.executable).with_name("guidellm")), "run", "--disable-progress"),
        *("--backend", f"kind=openai_http,target={target},api_key={KEY},model={MODEL}"),
        *("--tokenizer", f"kind=hf_auto,model={write_tokenizer(Path('tokenizer').resolve())}"),
        *("--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16", "--profile", "kind=concurrent,streams=2"),
        *("--constraint", "kind=max_requests,count=8", "--output", "kind=json,path=report.json"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = json.loads(Path("report.json").read_text())["benchmarks"]
    totals = made["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (8, 0), totals


run(benchmark=benchmark)
