"""The simulator's calls of tools: which it makes, and arguments that keep to the function's schema. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import ToolCallPiece, Tools
from headrace.errors import PromptRejected
from headrace.policies.tokens import PromptTokenizer
from workers.engines.base import GenerationRequest
from workers.engines.simulator.constrained import BYTES_A_TOKEN, in_tokens, write


def functions_to_call(tools: Tools | None, messages: Sequence[Message]) -> Sequence[Mapping[str, Any]]:
    """The functions that the answer calls; none if it is a text.

    After a user's turn, those that the turn names, or else the first one. After outputs of tools none, unless the
    choice is `required`: then the first one that was not called since the user's turn, or else the last.
    """
    if tools is None or tools.choice == "none" or not tools.functions:
        return ()
    if tools.choice == "function":
        return [each for each in tools.functions if each["name"] == tools.name][:1]
    turn = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)
    since = messages[turn + 1 :]
    if not any(message.role == "tool" for message in since):
        asked = messages[turn].content
        named = [each for each in tools.functions if each["name"] in asked] or tools.functions[:1]
        return named if tools.parallel else named[:1]
    if tools.choice == "auto":
        return ()
    called = {call.name for message in since for call in message.tool_calls}
    return [each for each in tools.functions if each["name"] not in called][:1] or tools.functions[-1:]


def calls(
    request: GenerationRequest, functions: Sequence[Mapping[str, Any]], seed: str, tokenizer: PromptTokenizer
) -> tuple[list[ToolCallPiece], bool]:
    """Calls of these functions.

    Returns: one piece that begins each call, one for each token of its arguments, and whether all arguments are whole.

    Raises: PromptRejected for parameters that cannot guide the arguments.
    """
    made, are_whole = list[ToolCallPiece](), True
    for index, function in enumerate(functions):
        digest = hashlib.sha256(f"{seed} {len(request.messages)} {index}".encode()).hexdigest()
        made.append(ToolCallPiece(index, f"call_{digest[:24]}", function["name"]))
        parameters = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
        try:
            text, is_whole = write(parameters, digest, BYTES_A_TOKEN * request.sampling.max_tokens)
        except PromptRejected as error:
            raise PromptRejected(f"The parameters of {function['name']}: {error}", param="tools") from error
        made += (ToolCallPiece(index, arguments=token) for token in in_tokens(text, tokenizer))
        are_whole &= is_whole
    return made, are_whole
