"""Operators: the people who look after the system in a browser, and what each may see and do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID


class Right(StrEnum):
    """What an operator may do beyond looking at the pages.

    ACT: retry and cancel jobs, send webhooks again, drain hosts and call them back. MANAGE: change the limits and
    budgets of apps, and revoke keys. TEXTS: read prompts, answers, and the whole URLs of webhooks, which may contain
    secrets.
    """

    ACT = "act"
    MANAGE = "manage"
    TEXTS = "texts"


class Role(StrEnum):
    """A set of rights."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rights(self) -> frozenset[Right]:
        """The rights of the role."""
        return _RIGHTS[self]


_RIGHTS: Mapping[Role, frozenset[Right]] = MappingProxyType(
    {
        Role.VIEWER: frozenset(),
        Role.OPERATOR: frozenset({Right.ACT}),
        Role.ADMIN: frozenset(Right),
    }
)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator's account.

    Attributes:
        password_hash: see `headrace.policies.passwords`.
    """

    id: UUID
    name: str
    role: Role
    password_hash: str
    created_at: datetime

    def may(self, right: Right) -> bool:
        """Whether the operator has this right."""
        return right in self.role.rights
