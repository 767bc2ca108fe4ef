"""A program for the actuator `command`, as short as one can be: machines are entries of a file."""

import fcntl
import json
import os
import signal
import sys
from pathlib import Path

folder = Path(os.environ["PROVIDER"])  # noqa: TID251 - a program of its own
mode = (folder / "mode").read_text()
request = json.load(sys.stdin)
if mode == "hang":
    signal.pause()
if mode == "fail":
    print("Trying.", file=sys.stderr)
    sys.exit("The cloud is closed.")

with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    file = folder / "machines.json"
    machines = json.loads(file.read_text()) if file.exists() else []
    ours = [each for each in machines if each["pool"] == request["pool"]]
    limit = folder / f"most-{request['pool']}"
    most = int(limit.read_text()) if limit.exists() else 8
    answer = ours
    if request["do"] == "order":
        asked = [each["host_id"] for each in request["hosts"]]
        new = [host_id for host_id in asked if host_id not in {each["host_id"] for each in ours}]
        for host_id in new[: max(0, most - len(ours))]:
            ours.append({"pool": request["pool"], "host_id": host_id, "provider_id": f"machine of {host_id}"})
            machines.append(ours[-1])
        answer = [each for each in ours if each["host_id"] in asked]
    elif request["do"] == "release":
        ended = {each["provider_id"] for each in request["hosts"]}
        machines = [each for each in machines if each["provider_id"] not in ended]
        answer = []
    file.write_text(json.dumps(machines))
if mode == "lie":
    answer = answer + answer[:1]
print(json.dumps({"hosts": answer, "a field of a later version": True}))
