"""Compresses a claimed job's prompt right before the engine gets it. The stored prompt stays as it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from headrace.domain.attempts import Claim
from headrace.errors import InvalidRequest
from headrace.policies.compression import plain
from headrace.policies.tokens import PromptTokenizer


@dataclass(frozen=True, slots=True)
class Compressor:
    """Serves all threads of one worker. Compression never fails a job.

    Attributes:
        tokenizer: gives what counts a prompt: the engine's own tokenizer, or an estimate where that is unknown.
        shrunk: called with a job and the tokens of its prompt once that is shorter.
    """

    tokenizer: Callable[[], PromptTokenizer]
    shrunk: Callable[[UUID, int], None]

    def compress(self, claim: Claim) -> Claim:
        """The claim with the messages to send."""
        compression = claim.sampling.compression
        if compression is None:
            return claim
        how = claim.sampling.reasoning_effort, claim.sampling.template_variables
        messages = plain(claim.messages, compression)
        try:
            tokens = self.tokenizer().count(messages, *how)
            # Other tokens meet where text is cut out, so a prompt may also grow by one or two.
            if tokens >= self.tokenizer().count(claim.messages, *how):
                return claim
        except InvalidRequest:
            # The chat template refuses these messages, as it may refuse the original: the engine's error says why.
            return claim
        self.shrunk(claim.job_id, tokens)
        return replace(claim, compressed=messages)
