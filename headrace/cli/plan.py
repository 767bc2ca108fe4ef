"""`headrace plan`: a model's share of a GPU, and the rest for jobs. Reads one `config.json`; runs nothing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from headrace.cli.output import out, table
from headrace.config import PoolSettings, Settings
from headrace.domain.shapes import KV_BYTES, WEIGHT_BYTES, ModelShape
from headrace.errors import ConfigError
from headrace.policies.sizing import BATCH, GIB, GPU_SHARE, GPUS, JobSize, KvPool, Serving, as_served, plan, rate

MIB = 2**20
#: vLLM's default block sizes, on a GPU and on a CPU.
BLOCK_TOKENS, CPU_BLOCK_TOKENS = 16, 128


@click.command("plan")
@click.option("--model", help="A Hugging Face id, a folder, or a config.json, in place of a pool's.")
@click.option(
    "--pool", "pool_name", metavar="NAME", help="Plan for this pool of headrace.toml. Default: the served pool."
)
@click.option(
    "--gpu", "names", multiple=True, type=click.Choice(list(GPUS)), help="The GPU. Repeatable. Default: all known ones."
)
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs that share one engine. Default: 1.")
@click.option(
    "--gpu-share",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Of a GPU's memory that the engine takes (gpu_memory_utilization). Default: {GPU_SHARE}.",
)
@click.option(
    "--quantisation", type=click.Choice(list(WEIGHT_BYTES)), help="The weights' format. Default: as published."
)
@click.option("--kv-dtype", type=click.Choice(list(KV_BYTES)), help="The KV cache's format. Default: bf16.")
@click.option(
    "--block-tokens",
    type=click.IntRange(min=1),
    help="Tokens in a block of the KV cache. Default: 16; 128 with --kv-cache-mib and no --gpu.",
)
@click.option("--max-running", type=click.IntRange(min=1), help=f"Jobs in a batch. Default: {BATCH}.")
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Prompt tokens of a typical job.",
)
@click.option(
    "--output-tokens",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    help="Output tokens of a typical job.",
)
@click.option(
    "--kv-cache-mib",
    type=click.IntRange(min=1),
    help="The KV cache of each GPU named by --gpu. Without --gpu: size such a cache, as on a CPU.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure, in bytes and seconds.")
def plan_(
    model: str | None,
    pool_name: str | None,
    names: tuple[str, ...],
    kv_cache_mib: int | None,
    prompt_tokens: int,
    output_tokens: int,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Size a model's KV cache on paper, before renting a GPU.

    The bytes of a token and the blocks of a cache match vLLM's own counts. The memory beside weights and cache is an
    estimate. The rates are upper bounds from memory and arithmetic: expect half to two thirds of them. A mixture of
    experts keeps all experts in memory but computes only with the active ones. A worker measures its own cache when it
    starts, and the API refuses jobs that can never fit in it.

    A pool's max_running, max_model_tokens, kv_cache_mib and engine_options apply, unless --model names another model.
    Options given here win over them.

    \b
    headrace plan --pool chat --gpu l4
    headrace plan --model meta-llama/Meta-Llama-3-8B-Instruct --gpu l4 --gpu h100
    headrace plan --model mistralai/Mixtral-8x7B-Instruct-v0.1 --gpu h100 --gpus 2 --kv-dtype fp8
    """
    settings = Settings.load()
    name, pool = _subject(settings, model, pool_name)
    kv_cache_mib = kv_cache_mib or (pool.kv_cache_mib if pool else None)
    kv_cache_bytes = kv_cache_mib * MIB if kv_cache_mib else None
    is_on_gpu = bool(names) or kv_cache_bytes is None
    serving = Serving(block_tokens=BLOCK_TOKENS if is_on_gpu else CPU_BLOCK_TOKENS, kv_cache_bytes=kv_cache_bytes)
    shape, serving = _as_chosen(ModelShape.of(read_config(name, settings.state_dir)), serving, pool, chosen)
    figures = _figures(shape, serving, names, (prompt_tokens, output_tokens))
    facts = _facts(shape, serving)
    if as_json:
        click.echo(json.dumps({"model": name, **facts, "gpus": figures}, indent=2))
        return
    out.print(_line(name, shape, facts))
    _show(figures, serving.gpus, f"{prompt_tokens} + {output_tokens}")
    out.print(f"longest: jobs of {shape.max_model_tokens:,} tokens that fit side by side.", style="dim")


def _subject(settings: Settings, model: str | None, pool_name: str | None) -> tuple[str, PoolSettings | None]:
    """The model to plan for, and the pool whose settings apply to it, if any.

    Raises: ConfigError: the pool does not exist, or only the paid API serves it.
    """
    if model:
        if pool_name:
            raise click.UsageError("Give --model or --pool, not both: a pool has a model of its own.")
        return model, None
    name = pool_name or settings.pool
    if name not in settings.pools:
        raise ConfigError(f"There is no pool '{name}': headrace.toml has {', '.join(settings.pools)}.", param="pool")
    pool = settings.pools[name]
    if pool.is_paid:
        message = f"The paid API alone answers pool '{name}': name the model to plan for with --model."
        raise ConfigError(message, param="model")
    return str(pool.model_dir or pool.model), pool


def _as_chosen(
    shape: ModelShape, serving: Serving, pool: PoolSettings | None, chosen: Mapping[str, Any]
) -> tuple[ModelShape, Serving]:
    """Apply the pool's settings, if there is a pool, then the options given here, which win."""
    if pool is not None:
        shape, serving = as_served(shape, serving, pool)
    return shape, replace(serving, **{name: value for name, value in chosen.items() if value is not None})


def _show(figures: Mapping[str, Mapping[str, Any]], gpus: int, length: str) -> None:
    """Print the table, then the GPUs that are too small. If all are, also print the reason."""
    small = [name for name, row in figures.items() if "reason" in row]
    if len(small) < len(figures):
        out.print(_table(figures, gpus))
    if small:
        reason = f" {figures[small[-1]]['reason']}" if len(small) == len(figures) else ""
        out.print(f"Too small: {', '.join(small)}.{reason}")
    if any("tokens_per_s" in row for row in figures.values()):
        out.print(f"running, token/s and jobs/s: jobs of {length} tokens, at most.", style="dim")


def read_config(model: str, state_dir: Path) -> Mapping[str, Any]:
    """The model's `config.json`: the named file, the one in the named folder, the demo's, or the hub's.

    Raises: ConfigError.
    """
    path = Path(model)
    made = state_dir / "models" / model.rpartition("/")[2].lower() / "config.json"
    found = next((each for each in (path, path / "config.json", made) if each.is_file()), None)
    try:
        found = found or _from_hub(model)
        config = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The config.json of {model} cannot be read: {error}. "
            "Give --model a folder or the file itself; for a gated model, accept its terms and set HF_TOKEN.",
            param="model",
        ) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{found} holds no JSON object.", param="model")
    return config


def _from_hub(model: str) -> Path:
    """The hub's present file, else the cached one. Raises: OSError. ValueError: the id is malformed."""
    import httpx2
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        # Ask for the metadata first: without a hub, a download retries for half a minute and prints each try.
        get_hf_file_metadata(hf_hub_url(model, "config.json"))
        return Path(hf_hub_download(model, "config.json"))
    except (OSError, httpx2.HTTPError) as error:
        reason = f"the Hugging Face hub does not hand it out ({type(error).__name__})"
    try:
        return Path(hf_hub_download(model, "config.json", local_files_only=True))
    except OSError:
        raise OSError(reason) from None


def _facts(shape: ModelShape, serving: Serving) -> dict[str, int]:
    return {
        "params": shape.params,
        "active_params": shape.active_params,
        "weight_bytes": shape.weight_bytes(serving.quantisation),
        "kv_bytes_per_token": shape.kv_bytes_per_token(serving.kv_dtype),
        "max_model_tokens": shape.max_model_tokens,
    }


def _figures(
    shape: ModelShape, serving: Serving, names: tuple[str, ...], tokens: tuple[int, int]
) -> dict[str, dict[str, Any]]:
    """The figures of each GPU; of a cache of a given size if no GPU is named. Args: tokens: of prompt and answer."""
    if serving.kv_cache_bytes is not None and not names:
        return {"given": _given(shape, serving, serving.kv_cache_bytes)}
    return {each: _on(shape, each, serving, *tokens) for each in names or GPUS}


def _given(shape: ModelShape, serving: Serving, total_bytes: int) -> dict[str, Any]:
    """The figures of a cache of a given size."""
    pool = KvPool(total_bytes, shape.kv_bytes_per_token(serving.kv_dtype, serving.gpus), serving.block_tokens)
    return _pool_figures(shape, pool)


def _on(shape: ModelShape, name: str, serving: Serving, prompt_tokens: int, output_tokens: int) -> dict[str, Any]:
    """One GPU's figures; only the reason if the model does not fit."""
    try:
        planned = plan(shape, GPUS[name], serving)
        reached = rate(shape, GPUS[name], serving, planned.pool, JobSize(prompt_tokens, output_tokens))
    except ConfigError as error:
        return {"reason": str(error)}
    filled = {"weight_bytes": planned.weight_bytes, "other_bytes": planned.other_bytes}
    return filled | _pool_figures(shape, planned.pool) | asdict(reached)


def _pool_figures(shape: ModelShape, pool: KvPool) -> dict[str, Any]:
    sizes = {"kv_bytes": pool.total_bytes, "kv_blocks": pool.blocks, "kv_block_tokens": pool.block_tokens}
    return {**sizes, "kv_tokens": pool.tokens, "longest_jobs": pool.sequences(shape.max_model_tokens)}


def _line(name: str, shape: ModelShape, facts: Mapping[str, int]) -> str:
    active = "" if shape.active_params == shape.params else f", {shape.active_params / 1e9:.2f} active"
    return (
        f"[bold]{name}[/]: {shape.params / 1e9:.2f} billion parameters{active}; weights "
        f"{facts['weight_bytes'] / GIB:.1f} GiB; {facts['kv_bytes_per_token']:,} bytes of KV cache a token; "
        f"up to {shape.max_model_tokens:,} tokens a job"
    )


def _table(figures: Mapping[str, Mapping[str, Any]], gpus: int) -> Table:
    """A row for each GPU that the model fits; --json has more."""
    rows = table("GPU" if gpus == 1 else f"{gpus} x GPU")
    for heading in ("weights", "KV GiB", "KV tokens", "longest", "running", "token/s", "jobs/s"):
        rows.add_column(heading, justify="right")
    for name, row in figures.items():
        if "reason" not in row:
            rows.add_row(name, *_cells(row))
    return rows


def _cells(row: Mapping[str, Any]) -> list[str]:
    def number(name: str, form: str = ",.0f", times: float = 1) -> str:
        return format(row[name] * times, form) if name in row else "-"

    sizes = [number("weight_bytes", ".1f", 1 / GIB), number("kv_bytes", ".1f", 1 / GIB), number("kv_tokens")]
    rates = [number("running"), number("tokens_per_s"), number("jobs_per_s", ",.1f")]
    return [*sizes, number("longest_jobs"), *rates]
