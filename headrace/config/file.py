"""The settings file: where it is, and that each of its names is a setting."""

from difflib import get_close_matches
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict, TomlConfigSettingsSource

from headrace.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class ConfigPath(BaseSettings):
    """`HEADRACE_CONFIG`: where the settings file is; the checkout's own by default."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", env_ignore_empty=True, extra="ignore")

    config: Path = PROJECT_ROOT / "headrace.toml"


def toml_source(settings: type[BaseSettings]) -> TomlConfigSettingsSource:
    """Read the file. Raises: ConfigError: the named file is absent, or it sets a name that no setting has."""
    named = ConfigPath()
    if "config" in named.model_fields_set and not named.config.is_file():
        raise ConfigError(f"HEADRACE_CONFIG names {named.config}, where there is no file.", param="config")
    file = TomlConfigSettingsSource(settings, toml_file=named.config)
    for name in file.toml_data:
        if name not in settings.model_fields:
            near = get_close_matches(name, settings.model_fields, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{named.config} sets '{name}', which is no setting.{hint}", param=name)
    return file
