"""numpy, which the CLI imports only when a command needs it: an API host has none."""

from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from headrace.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]


def check_numpy() -> None:
    """Raises: ConfigError: numpy is not installed."""
    _check("numpy", "'headrace backtest' computes with numpy")


def check_matplotlib() -> None:
    """Raises: ConfigError: matplotlib is not installed."""
    _check("matplotlib", "--chart draws with matplotlib")


def _check(module: str, why: str) -> None:
    try:
        found: ModuleType = __import__(module)
    except ImportError:
        message = f"{why}, which this environment lacks. Run 'bin/headrace install --dev', or 'pip install {module}'."
        raise ConfigError(message) from None
    assert found
