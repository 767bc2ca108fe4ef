"""Valid bodies of each operation by name, and the beginnings of its streams."""

from collections.abc import Mapping
from typing import Any

QUESTION = "Why is the sky blue?"
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}

JOBS: Mapping[str, Mapping[str, Any]] = {
    "prompt": {"prompt": QUESTION, "lane": "high", "max_tokens": 64, "metadata": {"order": "17"}},
    "conversation": {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        "lane": "low",
        "max_wait": 3600,
        "overflow": "never",
        "temperature": 0.2,
    },
    "json": {
        "prompt": "What colour is the sky?",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        "end_user": "u-42",
    },
    "embeddings": {"input": [QUESTION, "What colour is the sky?"], "lane": "low"},
}
RESPONSES: Mapping[str, Mapping[str, Any]] = {
    "background": {"input": QUESTION, "background": True, "max_output_tokens": 64},
    "waiting": {"input": QUESTION, "instructions": "Be brief.", "service_tier": "priority"},
    "stream": {"input": QUESTION, "stream": True, "background": True},
    "patient": {
        "input": [{"role": "user", "content": QUESTION}],
        "background": True,
        "background_options": {"completion_window": "2h"},
        "job": {"overflow": "never"},
    },
}
CHAT: Mapping[str, Mapping[str, Any]] = {
    "waiting": {"messages": [{"role": "user", "content": QUESTION}], "max_completion_tokens": 64},
    "stream": {
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
}
COMPLETIONS: Mapping[str, Mapping[str, Any]] = {
    "waiting": {"prompt": "The sky is", "max_tokens": 64},
    "stream": {"prompt": [72, 105], "stream": True, "min_tokens": 8, "ignore_eos": True},
}
EMBEDDINGS: Mapping[str, Mapping[str, Any]] = {
    "one": {"input": QUESTION},
    "many": {"input": [QUESTION, "What colour is the sky?"], "encoding_format": "base64", "job": {"lane": "low"}},
}
TOKENIZE: Mapping[str, Mapping[str, Any]] = {
    "text": {"prompt": QUESTION, "return_token_strs": True},
    "conversation": {"messages": [{"role": "user", "content": QUESTION}]},
}
DETOKENIZE: Mapping[str, Mapping[str, Any]] = {"text": {"tokens": [72, 105]}}
RESPONSE_EVENTS = 'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{…}}\n\n'
CHAT_CHUNKS = 'data: {"id":"chatcmpl-…","object":"chat.completion.chunk",…}\n\ndata: [DONE]\n\n'
COMPLETION_CHUNKS = 'data: {"id":"cmpl-…","object":"text_completion",…}\n\ndata: [DONE]\n\n'
