"""Stands in for the command line of AWS: three commands of `aws ec2`, strict about their arguments."""

import argparse
import fcntl
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

folder = Path(os.environ["PROVIDER"])  # noqa: TID251 - a program of its own
mode = (folder / "mode").read_text()
with (folder / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")
if mode == "hang":
    signal.pause()
if mode == "fail":
    sys.exit("An error occurred (UnauthorizedOperation): you may not do this.")

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("ec2", choices=["ec2"])
commands = parser.add_subparsers(dest="command", required=True)
describe = commands.add_parser("describe-instances", allow_abbrev=False)
describe.add_argument("--filters", nargs="+", required=True)
run = commands.add_parser("run-instances", allow_abbrev=False)
for option in ("--count", "--client-token", "--launch-template", "--tag-specifications"):
    run.add_argument(option, required=True)
run.add_argument("--instance-type")
terminate = commands.add_parser("terminate-instances", allow_abbrev=False)
terminate.add_argument("--instance-ids", nargs="+", required=True)
for command in (describe, run, terminate):
    command.add_argument("--output", choices=["json"], required=True)
options = parser.parse_args()

Instance = dict[str, Any]


def tag(instance: Instance, key: str) -> str | None:
    return next((each["Value"] for each in instance["Tags"] if each["Key"] == key), None)


def described(instances: list[Instance]) -> Any:
    filters = dict(re.fullmatch(r"Name=(.+),Values=(.+)", each).groups() for each in options.filters)  # type: ignore[union-attr,misc]
    states = filters["instance-state-name"].split(",")
    ours = [each for each in instances if tag(each, "headrace:pool") == filters["tag:headrace:pool"]]
    found = [each for each in ours if each["State"]["Name"] in states]
    # A machine twice, as a page that is read while the list changes.
    return {"Reservations": [{"Instances": [each]} for each in (found + found[:1] if mode == "lie" else found)]}


def run_one(instances: list[Instance]) -> Any:
    assert options.count == "1"
    assert len(options.client_token) <= 64
    tags = [
        {"Key": key, "Value": value}
        for key, value in re.findall(r"{Key=(.+?),Value=(.+?)}", options.tag_specifications)
    ]
    new: Instance = {"ClientToken": options.client_token, "Tags": tags, "State": {"Name": "running"}}
    known = [each for each in instances if each["ClientToken"] == options.client_token]
    if not known:
        pool = tag(new, "headrace:pool")
        limit = folder / f"most-{pool}"
        running = [
            each for each in instances if tag(each, "headrace:pool") == pool and each["State"]["Name"] == "running"
        ]
        if len(running) >= (int(limit.read_text()) if limit.exists() else 8):
            sys.exit("An error occurred (InsufficientInstanceCapacity): there are no more of them.")
        known = [{**new, "InstanceId": f"i-{len(instances):08x}"}]
        instances += known
    return {"Instances": known}


def end(instances: list[Instance]) -> Any:
    if unknown := set(options.instance_ids) - {each["InstanceId"] for each in instances}:
        sys.exit(f"An error occurred (InvalidInstanceID.NotFound): {unknown}.")
    for each in instances:
        if each["InstanceId"] in options.instance_ids:
            each["State"] = {"Name": "shutting-down"}
    return {"TerminatingInstances": []}


with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    file = folder / "instances.json"
    all_instances = json.loads(file.read_text()) if file.exists() else []
    does = {"describe-instances": described, "run-instances": run_one, "terminate-instances": end}
    print(json.dumps(does[options.command](all_instances)))
    file.write_text(json.dumps(all_instances))
