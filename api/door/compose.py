"""Composes a conversation that goes on from stored responses of the same app. Knows no HTTP."""

import re
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy import Connection

from api.door.drafts import Continuation, Draft, ItemReference
from headrace.domain.apps import App
from headrace.domain.ids import parse_id
from headrace.domain.prompts import Message, is_plain
from headrace.domain.prompts.embeddings import are_inputs
from headrace.domain.prompts.tools import ToolCall
from headrace.errors import ContextLengthExceeded, InvalidRequest, JobNotEnded, NotFound
from headrace.store import Store, jobs
from headrace.store.jobs import texts

PREVIOUS = "previous_response_id"
#: A response's answer, or a call of it, or its reasoning; or a turn of its input, or a call of that, each by number.
_ITEM = re.compile("(msg|rs|fc|fco)_([0-9a-f]{32})((?:_[0-9]{1,6}){0,2})")


def composed(draft: Draft, app: App, store: Store, limit_bytes: int) -> Draft:
    """The draft with its whole conversation.

    Args: limit_bytes: of all its texts together.
    Raises: NotFound: a response, or an item of one, does not exist, was erased, or is another app's; or no turn made
        the call that an output is of. JobNotEnded. InvalidRequest: it has no answer. ContextLengthExceeded.
        StoreUnavailable.
    """
    asked = draft.continuation
    if asked is None:
        return draft
    param = PREVIOUS if asked.previous_id else draft.spelling.prompt
    if asked.is_whole:
        begin = () if asked.instructions is None else (asked.instructions,)
        messages = (*begin, *(turn for turn in asked.turns if isinstance(turn, Message)))
    else:
        with store.begin() as db:
            messages = _Composer(db, app.id, Room(limit_bytes, param)).compose(asked)
    Room(limit_bytes, param).take(*messages)
    messages = _with_joined_calls(messages)
    _check_outputs(messages, draft.spelling.prompt)
    if not any(message.has_content for message in messages):
        raise InvalidRequest("Invalid 'input': it must not be empty.", param=draft.spelling.prompt)
    return replace(draft, messages=messages, continuation=None)


class Room:
    """The bytes that may still be read. Without a bound, references could fill the memory."""

    def __init__(self, limit_bytes: int, param: str) -> None:
        """Args: param: the field to blame."""
        self._limit = self._left = limit_bytes
        self._param = param

    def take(self, *messages: Message) -> None:
        """Raises: ContextLengthExceeded: these messages are too much."""
        self._left -= sum(map(_size_bytes, messages))
        if self._left < 0:
            message = f"The whole conversation has more than {self._limit} bytes: begin a new one."
            raise ContextLengthExceeded(message, param=self._param)


class _Composer:
    """Reads the responses of one continuation, each once."""

    def __init__(self, db: Connection, app_id: UUID, room: Room) -> None:
        self._db, self._app_id, self._room = db, app_id, room
        self._inputs: dict[UUID, tuple[Message, ...]] = {}
        self._answers: dict[UUID, Message] = {}

    def compose(self, asked: Continuation) -> tuple[Message, ...]:
        before: tuple[Message, ...] = ()
        if asked.previous_id is not None:
            before = self._conversation(asked.previous_id)
        if asked.instructions is not None:
            # They take the place of those that began the earlier conversation.
            before = (asked.instructions, *(before[1:] if before and before[0].role == "system" else before))
        turns = (self._item(turn) if isinstance(turn, ItemReference) else (turn,) for turn in asked.turns)
        return (*before, *(message for found in turns for message in found))

    def _conversation(self, response_id: str) -> tuple[Message, ...]:
        try:
            job_id = parse_id(response_id)
            return (*self._input(job_id), self._answer(job_id, PREVIOUS))
        except NotFound as error:
            raise NotFound(f"No response with id '{response_id[:80]}'.", param=PREVIOUS) from error

    def _item(self, reference: ItemReference) -> tuple[Message, ...]:
        missing = NotFound(f"No item with id '{reference.id[:80]}'.", param=reference.param)
        if (found := _ITEM.fullmatch(reference.id)) is None:
            raise missing
        job_id, numbers = UUID(hex=found[2]), [int(each) for each in found[3].split("_")[1:]]
        try:
            turns = self._input(job_id)
        except NotFound as error:
            raise missing from error
        try:
            match found[1], numbers:
                case "rs", []:
                    return ()  # What came before an answer is not read again, as where it is sent back.
                case "msg", []:
                    return (replace(self._answer(job_id, reference.param), tool_calls=()),)
                case "fc", [call]:
                    return (_call(self._answer(job_id, reference.param), call),)
                case "msg" | "fco", [turn]:
                    return (replace(turns[turn], tool_calls=()),)
                case "fc", [turn, call]:
                    return (_call(turns[turn], call),)
        except IndexError as error:
            raise missing from error
        raise missing

    def _input(self, job_id: UUID) -> tuple[Message, ...]:
        if job_id not in self._inputs:
            found = texts.conversation(self._db, self._app_id, job_id)
            if are_inputs(found) or is_plain(found):
                raise NotFound("It has no conversation.")
            self._room.take(*found)
            self._inputs[job_id] = found
        return self._inputs[job_id]

    def _answer(self, job_id: UUID, param: str) -> Message:
        if job_id not in self._answers:
            job = jobs.find(self._db, self._app_id, job_id)
            if not job.state.is_terminal:
                raise JobNotEnded(f"The response that '{param}' names is {job.state}.", param=param, job_id=job_id)
            if job.answer is None:
                raise InvalidRequest(f"The response that '{param}' names has no answer: it {job.state}.", param=param)
            self._room.take(answer := Message("assistant", job.answer, tool_calls=job.tool_calls))
            self._answers[job_id] = answer
        return self._answers[job_id]


def _size_bytes(message: Message) -> int:
    return len(message.content.encode()) + sum(len(call.arguments.encode()) for call in message.tool_calls)


def _call(turn: Message, number: int) -> Message:
    """One call of a turn. Raises: IndexError."""
    return Message("assistant", "", tool_calls=(turn.tool_calls[number],))


def _with_joined_calls(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Calls that follow each other, or an answer's text, as one turn, as chat templates and other APIs expect."""
    turns: list[Message] = []
    calls: list[list[ToolCall]] = []
    for message in messages:
        if turns and message.tool_calls and not message.content and turns[-1].role == "assistant":
            calls[-1] += message.tool_calls
        else:
            turns.append(message)
            calls.append(list(message.tool_calls))
    return tuple(replace(turn, tool_calls=tuple(made)) for turn, made in zip(turns, calls, strict=True))


def _check_outputs(messages: Sequence[Message], param: str) -> None:
    """Raises: NotFound: no turn made the call that an output is of."""
    made = set[str]()
    for message in messages:
        made.update(call.id for call in message.tool_calls)
        if message.tool_call_id is not None and message.tool_call_id not in made:
            which = message.tool_call_id[:80]
            raise NotFound(f"No call with id '{which}': no turn before its output made it.", param=param)
