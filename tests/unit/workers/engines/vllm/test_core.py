"""What an ended core leaves behind."""

import gc
from threading import Thread
from types import SimpleNamespace

import pytest
import zmq
import zmq.asyncio

from workers.engines.vllm.core import Core


def end_core_with_an_open_socket() -> None:
    """Leaves a client like vLLM's to the garbage collection: in a cycle, with a socket that it has not closed."""
    context = zmq.asyncio.Context(zmq.Context())
    client = SimpleNamespace(ctx=context, output_socket=context.socket(zmq.PAIR))
    client.itself = client
    config = SimpleNamespace(get_diff_sampling_param=dict)
    Core(SimpleNamespace(model_config=config, engine_core=client, shutdown=lambda timeout: None)).close(0, 0)


@pytest.mark.filterwarnings("ignore:Unclosed socket:ResourceWarning")
def test_a_socket_that_vllm_leaves_open_holds_up_no_garbage_collection() -> None:
    end_core_with_an_open_socket()
    collection = Thread(target=gc.collect, daemon=True)
    collection.start()
    collection.join(30)
    assert not collection.is_alive()
