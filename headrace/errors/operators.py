"""Errors that an operator mends: settings, prices, and the one-machine stack."""

from headrace.errors.base import HeadraceError


class ConfigError(HeadraceError):
    """A setting is missing or wrong."""

    code = "invalid_configuration"


class UnknownPrice(HeadraceError):
    """No price is listed for this model; we never guess one."""

    code = "unknown_price"


class StackError(HeadraceError):
    """The one-machine stack could not be brought up."""

    code = "stack_error"
