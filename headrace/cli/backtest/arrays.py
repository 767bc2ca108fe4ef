"""numpy, which the CLI imports only when a command needs it: an API host has none."""

from typing import TYPE_CHECKING, TypeAlias

from headrace.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]


def check_numpy() -> None:
    """Raises: ConfigError: numpy is not installed."""
    try:
        import numpy
    except ImportError:
        message = "'headrace backtest' computes with numpy, which this environment lacks."
        raise ConfigError(f"{message} Run 'bin/headrace install --dev', or 'pip install numpy'.") from None
    assert numpy
