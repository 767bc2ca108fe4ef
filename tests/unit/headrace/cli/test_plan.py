"""`headrace plan`, from a config.json to a table."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main

CONFIG = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def test_every_gpu_that_the_model_fits_has_a_row_of_80_columns(folder: Path) -> None:
    result = run("--model", str(folder))

    assert result.exit_code == 0
    words = " ".join(result.output.split())
    assert "8.03 billion parameters" in words
    assert "131,072 bytes" in words
    assert all(len(line) <= 80 for line in result.output.splitlines())
    assert "Too small: t4." in result.output


def test_a_file_is_as_good_as_its_folder(folder: Path) -> None:
    arguments = ("--gpu", "h100", "--json")
    by_file, by_folder = (
        json.loads(run("--model", str(path), *arguments).output) for path in (folder / "config.json", folder)
    )

    assert by_file["gpus"] == by_folder["gpus"]
    assert set(by_file["gpus"]) == {"h100"}


def test_a_cache_of_a_given_size_is_counted_in_blocks_of_a_cpu(folder: Path) -> None:
    figures = json.loads(run("--model", str(folder), "--kv-cache-mib", "1024", "--json").output)["gpus"]["given"]

    assert (figures["kv_blocks"], figures["kv_block_tokens"], figures["kv_tokens"]) == (64, 128, 63 * 128)
    assert "token/s" in run("--model", str(folder), "--kv-cache-mib", "1024").output


def test_a_cache_of_a_given_size_on_a_gpu_is_planned_in_its_blocks(folder: Path) -> None:
    arguments = ("--model", str(folder), "--gpu", "h100", "--gpu", "l4", "--kv-cache-mib", "8192")
    figures = json.loads(run(*arguments, "--json").output)["gpus"]

    assert (figures["h100"]["kv_bytes"], figures["h100"]["kv_block_tokens"]) == (8192 * 2**20, 16)
    assert figures["h100"]["tokens_per_s"] > 0
    assert "a step about" in figures["l4"]["reason"], "16 GiB of weights and 8 of cache are more than 22 GiB"
    assert "its KV cache of 8.0 GiB (kv_cache_mib)" in figures["l4"]["reason"]


def test_a_pools_cache_of_a_given_size_is_planned_for_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "headrace.toml"
    file.write_text(f'pool = "chat"\n[pools.chat]\nmodel_dir = "{folder}"\nkv_cache_mib = 4096\n')
    monkeypatch.setenv("HEADRACE_CONFIG", str(file))

    def kv_bytes(*arguments: str) -> int:
        [figures] = json.loads(run(*arguments, "--json").output)["gpus"].values()
        return int(figures["kv_bytes"])

    assert kv_bytes("--gpu", "h100") == kv_bytes() == 4096 * 2**20
    assert kv_bytes("--gpu", "h100", "--kv-cache-mib", "1024") == 1024 * 2**20


def test_what_does_not_fit_says_why(folder: Path) -> None:
    result = run("--model", str(folder), "--gpu", "t4")

    assert result.exit_code == 0
    assert "does not fit" in result.output


@pytest.fixture
def pools(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of the model in the folder, which is served, and one of the paid API's."""
    file = folder / "headrace.toml"
    file.write_text(f"""
pool = "chat"
openai_api_key = "sk-test"
[pools.mini]
engine = "openai"
model = "gpt-4o-mini"
[pools.chat]
model_dir = "{folder}"
max_model_tokens = 4096
max_running = 24
engine_options = {{ tensor_parallel_size = 2, kv_cache_dtype = "fp8" }}
""")
    monkeypatch.setenv("HEADRACE_CONFIG", str(file))


@pytest.mark.parametrize("named", [(), ("--pool", "chat")], ids=["served", "named"])
@pytest.mark.usefixtures("pools")
def test_a_pool_is_planned_for_as_it_is_served(folder: Path, named: tuple[str, ...]) -> None:
    as_set = json.loads(run(*named, "--gpu", "h100", "--json").output)
    by_hand = ("--gpus", "2", "--kv-dtype", "fp8", "--max-running", "24")
    same = json.loads(run("--model", str(folder), *by_hand, "--gpu", "h100", "--json").output)

    assert (as_set["model"], as_set["max_model_tokens"]) == (str(folder), 4096)
    assert as_set["gpus"]["h100"]["running"] == 24
    assert as_set["gpus"]["h100"] == same["gpus"]["h100"] | {"longest_jobs": as_set["gpus"]["h100"]["longest_jobs"]}


@pytest.mark.usefixtures("pools")
def test_what_is_said_wins_over_the_pool() -> None:
    figures = json.loads(run("--max-running", "3", "--gpus", "1", "--gpu", "h100", "--json").output)["gpus"]["h100"]

    assert figures["running"] == 3


@pytest.mark.usefixtures("pools")
def test_another_model_is_planned_for_without_the_pool(folder: Path) -> None:
    facts = json.loads(run("--model", str(folder), "--gpu", "h100", "--json").output)

    assert (facts["max_model_tokens"], facts["gpus"]["h100"]["running"]) == (8192, 256)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("--pool", "fast"), 1, "There is no pool 'fast': headrace.toml has mini, chat."),
        (("--pool", "mini"), 1, "The paid API alone answers pool 'mini': name the model to plan for with --model."),
        (("--pool", "chat", "--model", "x"), 2, "Give --model or --pool, not both"),
    ],
)
@pytest.mark.usefixtures("pools")
def test_a_pool_that_cannot_be_planned_for_says_why(arguments: tuple[str, ...], status: int, sentence: str) -> None:
    result = run(*arguments)

    assert (result.exit_code, sentence in result.output) == (status, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hidden_size": 1}'])
def test_a_file_that_is_no_models_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    result = run("--model", str(path))

    assert result.exit_code == 1
    assert "config.json" in result.output
