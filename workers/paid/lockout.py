"""Lock-outs by the paid API: of the whole account, or of single models. Each has its own circuit breaker."""

from collections.abc import Callable, Collection

from workers.paid.breaker import Breaker


class Lockout:
    """A breaker for the account, and one for each model. Safe for many threads."""

    def __init__(self, models: Collection[str], in_use: Collection[str], make: Callable[[], Breaker]) -> None:
        """Start with all breakers closed.

        Args:
            models: all models that may be called.
            in_use: the models that are called for new jobs. While all of these are locked out, the API is of no use.
                Empty where all pools serve embeddings.
        """
        self._account = make()
        self._models = {model: make() for model in models}
        self._in_use = [self._models[model] for model in in_use]

    @property
    def is_open(self) -> bool:
        """True while the account, or every model in use, is locked out."""
        are_open = [each.is_open for each in self._in_use]
        return self._account.is_open or (bool(are_open) and all(are_open))

    @property
    def is_probing(self) -> bool:
        """True while no call is admitted but a probe is running, so its outcome comes soon."""
        probes = (each.is_probing for each in (self._account, *self._models.values()))
        return self.is_open and any(probes)

    def probes(self, model: str) -> bool:
        """True while a running probe decides whether calls of this model are admitted."""
        return self._account.is_probing or self._models[model].is_probing

    def admits(self, model: str) -> bool:
        """True if another call of this model may be made now; see `Breaker.admits`."""
        if not self._account.admits():
            return False
        is_admitted = self._models[model].admits()
        if not is_admitted:
            self._account.is_unsure()
        return is_admitted

    def succeeded(self, model: str) -> bool:
        """Note a successful call of this model. Returns: True when it closed a breaker."""
        return self._account.succeeded() | self._models[model].succeeded()

    def account_failed(self, model: str) -> bool:
        """Note that a call of this model met the account's lock-out. Returns: True when it opened that breaker."""
        self._models[model].is_unsure()
        return self._account.failed()

    def model_failed(self, model: str) -> bool:
        """Note that the account may not use this model. Returns: True when it opened the model's breaker."""
        self._account.is_unsure()
        return self._models[model].failed()

    def is_unsure(self, model: str) -> None:
        """Note a call of this model that was not made, or that shows neither success nor lock-out."""
        self._account.is_unsure()
        self._models[model].is_unsure()
