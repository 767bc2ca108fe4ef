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


def test_what_does_not_fit_says_why(folder: Path) -> None:
    result = run("--model", str(folder), "--gpu", "t4")

    assert result.exit_code == 0
    assert "does not fit" in result.output


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hidden_size": 1}'])
def test_a_file_that_is_no_models_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    result = run("--model", str(path))

    assert result.exit_code == 1
    assert "config.json" in result.output
