"""What the collector looks at in a process that has loaded its code."""

import json
import subprocess
import sys

PROGRAM = """
import gc, json, weakref
from headrace import startup

class Node:
    def __init__(self):
        self.itself = self

startup.settle_heap(12_345)
left = [gc.get_freeze_count(), gc.get_count()[2], gc.get_threshold()[0]]
made = weakref.ref(Node())
gc.collect()
print(json.dumps([*left, made() is None]))
"""


def test_what_is_loaded_is_hidden_and_what_comes_later_is_collected() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    frozen, older, young_objects, is_freed = json.loads(ended.stdout)
    assert frozen > 5_000
    assert older == 0
    assert young_objects == 12_345
    assert is_freed
