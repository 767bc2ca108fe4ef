"""What the paid API has locked us out of: all of it, or some of its models. Each has a breaker of its own."""

from collections.abc import Callable, Collection

from workers.paid.breaker import Breaker


class Lockout:
    """A breaker for the account, and one for each model. Safe for many threads."""

    def __init__(self, models: Collection[str], in_use: Collection[str], make: Callable[[], Breaker]) -> None:
        """All closed.

        Args:
            models: all that are ever called.
            in_use: those of them that are called for new jobs: without these nothing is left.
        """
        self._account = make()
        self._models = {model: make() for model in models}
        self._in_use = [self._models[model] for model in in_use]

    @property
    def is_open(self) -> bool:
        """True while no call is admitted, whichever model in use it is for."""
        return self._account.is_open or all(each.is_open for each in self._in_use)

    @property
    def is_probing(self) -> bool:
        """True while no call is admitted, and word of whether one is comes soon."""
        probes = (each.is_probing for each in (self._account, *self._models.values()))
        return self.is_open and any(probes)

    def probes(self, model: str) -> bool:
        """True while word comes soon of whether calls of this model are admitted."""
        return self._account.is_probing or self._models[model].is_probing

    def admits(self, model: str) -> bool:
        """Whether one more call of this model may be made now; see `Breaker.admits`."""
        if not self._account.admits():
            return False
        is_admitted = self._models[model].admits()
        if not is_admitted:
            self._account.is_unsure()
        return is_admitted

    def succeeded(self, model: str) -> bool:
        """A call of this model went well. Returns: True when that has closed a breaker."""
        return self._account.succeeded() | self._models[model].succeeded()

    def account_failed(self, model: str) -> bool:
        """The account was locked out, with a call of this model. Returns: True when that has opened its breaker."""
        self._models[model].is_unsure()
        return self._account.failed()

    def model_failed(self, model: str) -> bool:
        """This model is not for us. Returns: True when that has opened its breaker."""
        self._account.is_unsure()
        return self._models[model].failed()

    def is_unsure(self, model: str) -> None:
        """A call of this model was not made, or says neither."""
        self._account.is_unsure()
        self._models[model].is_unsure()
