"""What the door checks of tools: whether a model is told of them, and whether its calls are read. Pure."""

from api.door.drafts import Draft
from headrace.domain.prompts import has_calls
from headrace.errors import InvalidRequest

CODE = "tools_not_supported"


def check_tools(draft: Draft, model: str, *, has_template: bool, has_parser: bool) -> None:
    """Without this, a template without tools would silently leave them out of the prompt.

    Args: model: its name. has_template: its chat template has tools. has_parser: its calls are read.
    Raises: InvalidRequest that names the field: the model cannot use the tools, or read the calls of earlier turns.
    """
    param = "tools" if draft.tools is not None else draft.spelling.prompt
    if draft.tools is None and not has_calls(draft.messages):
        return
    if not has_template:
        message = (
            f"The model '{model}' calls no tools: its chat template has no word for them. Leave out 'tools' and "
            "turns with calls, or name another model. The operator can set the pool's 'chat_template'."
        )
        raise InvalidRequest(message, code=CODE, param=param)
    if draft.tools is not None and draft.tools.choice != "none" and not has_parser:
        message = (
            f"The calls of the model '{model}' are not read: its pool has no 'tool_parser'. Leave 'tools' out, or "
            "name another model."
        )
        raise InvalidRequest(message, code=CODE, param=param)
