"""Files of models, from folders and the Hugging Face hub. The hub's slow libraries are imported only when needed."""

import json
from collections.abc import Sequence
from pathlib import Path

from headrace.config import PoolSettings
from headrace.config.pools import SHIPPED_TEMPLATES
from headrace.errors import ConfigError
from headrace.policies.tokens import FILES, EstimatingTokenizer, InputTokenizer, PromptTokenizer, Tokenizer

#: Chat templates with tools, for models whose own has none.
TEMPLATES = Path(__file__).with_name("chat_templates")


def snapshot(
    model: str, wanted: Sequence[str] | None = None, unwanted: Sequence[str] | None = None, *, is_offline: bool = False
) -> Path:
    """Download files of a model into the hub's usual cache, and return their folder.

    Args:
        wanted: patterns of file names; None for all files.
        unwanted: patterns of file names to leave out; None to leave out none.
        is_offline: True to use only files downloaded before, without asking the hub.

    Raises:
        OSError: the files do not exist, or the hub cannot be reached. ValueError: `model` is not a valid model id.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    allowed, ignored = (None if patterns is None else list(patterns) for patterns in (wanted, unwanted))
    try:
        folder = snapshot_download(model, allow_patterns=allowed, ignore_patterns=ignored, local_files_only=is_offline)
        return Path(folder)
    except (httpx2.HTTPError, EntryNotFoundError) as error:
        raise OSError(str(error)) from error


def tokenizer_for(pool: PoolSettings) -> PromptTokenizer | InputTokenizer:
    """The tokenizer that a pool's engine uses. Raises: ConfigError."""
    has_folder = pool.model_dir is not None or Path(pool.model).is_dir()
    if pool.engine in ("simulator", "openai") and not has_folder:
        return InputTokenizer() if pool.is_embedding else EstimatingTokenizer()
    if pool.is_embedding:
        folder = _folder(pool.model, pool.model_dir)
        return InputTokenizer.of(folder, is_matryoshka=_is_matryoshka(folder / "config.json", pool))
    return tokenizer(pool.model, pool.model_dir, _template_file(pool.chat_template))


def _is_matryoshka(config: Path, pool: PoolSettings) -> bool:
    """Whether vLLM shortens the model's vectors: its configuration, or the operator's overrides of it, decide."""
    facts = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    overrides = pool.engine_options.get("hf_overrides", {})
    facts |= json.loads(overrides) if isinstance(overrides, str) else overrides
    return bool(facts.get("matryoshka_dimensions") or facts.get("is_matryoshka"))


def tokenizer(model: str, model_dir: Path | None = None, chat_template: Path | None = None) -> Tokenizer:
    """The tokenizer of a folder or of a hub id. The few small files of an id are downloaded into the hub's usual cache.

    Args:
        model: a Hugging Face id or a folder.
        model_dir: a folder that overrides `model`; None to use `model`.
        chat_template: a file that overrides the model's own template.

    Raises:
        ConfigError: the folder does not exist, has no usable tokenizer, or the hub cannot be reached.
    """
    return Tokenizer(_folder(model, model_dir), chat_template)


def _template_file(named: str | None) -> Path | None:
    """A pool's `chat_template`: a file, or the name of one that is shipped. Raises: ConfigError."""
    if named is None:
        return None
    if named in SHIPPED_TEMPLATES:
        return TEMPLATES / f"{named}.jinja"
    if not (file := Path(named)).is_file():
        shipped = ", ".join(SHIPPED_TEMPLATES)
        message = f"chat_template: there is no file '{named}'. The templates that Headrace ships: {shipped}."
        raise ConfigError(message, param="chat_template")
    return file


def _folder(model: str, model_dir: Path | None) -> Path:
    folder = model_dir or Path(model)
    return folder if model_dir or folder.is_dir() else _from_hub(model)


def _from_hub(model: str) -> Path:
    try:
        cached = snapshot(model, FILES, is_offline=True)
        if (cached / "tokenizer.json").exists():
            return cached
    except (OSError, ValueError):
        pass  # Not downloaded yet, or not a valid id: the next call tells which.
    try:
        return snapshot(model, FILES)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The tokenizer of {model} could not be downloaded from the Hugging Face hub: {error} "
            "Set its pool's model_dir (HEADRACE_MODEL_DIR for the served pool) to a folder with the model.",
            param="model",
        ) from error
