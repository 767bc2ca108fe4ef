import json
from pathlib import Path

import pytest

from headrace.errors import ConfigError
from workers.engines.adapters import find_adapters, lora_arguments

WHERE = "pools.chat.adapters"


def adapter(folder: Path, rank: object = 8) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(folder)


def test_adapters_are_numbered_as_they_are_set(tmp_path: Path) -> None:
    found = find_adapters({"sql": adapter(tmp_path / "a", 8), "mail": adapter(tmp_path / "b", 64)}, WHERE)
    assert [(each.name, each.number, each.rank) for each in found.values()] == [("sql", 1, 8), ("mail", 2, 64)]
    assert lora_arguments(found.values(), on_cpu=False) == {
        "enable_lora": True,
        "max_loras": 2,
        "max_cpu_loras": 2,
        "max_lora_rank": 64,
    }


def test_a_batch_on_a_gpu_has_a_bounded_number_of_them(tmp_path: Path) -> None:
    found = find_adapters({f"no-{i}": adapter(tmp_path / str(i)) for i in range(9)}, WHERE)
    chosen = lora_arguments(found.values(), on_cpu=False)
    assert (chosen["max_loras"], chosen["max_cpu_loras"]) == (8, 9)


@pytest.mark.parametrize("rank", [0, 513, "many", None])
def test_a_rank_that_vllm_does_not_take_is_named(tmp_path: Path, rank: object) -> None:
    with pytest.raises(ConfigError) as raised:
        find_adapters({"sql": adapter(tmp_path / "a", rank)}, WHERE)
    assert raised.value.param == "pools.chat.adapters.sql"


def test_a_folder_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pools\.chat\.adapters\.sql.*adapter_config\.json"):
        find_adapters({"sql": str(tmp_path)}, WHERE)


def test_what_is_neither_a_folder_nor_a_hub_id_is_named() -> None:
    with pytest.raises(ConfigError, match=r"pools\.chat\.adapters\.sql.*/no/such/folder"):
        find_adapters({"sql": "/no/such/folder"}, WHERE)
