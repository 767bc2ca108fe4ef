"""Stands in for `ssh`, which runs each command here with the machine's folder as /run/headrace, and for `systemctl`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

environment = dict(os.environ)  # noqa: TID251 - a program of its own
folder = Path(environment["PROVIDER"])


def ssh(arguments: list[str]) -> int:
    options, address, command = arguments[:-3], arguments[-2], arguments[-1]
    assert arguments[-3] == "--"
    assert options[:2] == ["-o", "BatchMode=yes"]
    with (folder / "calls").open("a") as calls:
        calls.write(f"{address} {command}\n")
    mode = (folder / "mode").read_text()
    if mode == "hang":
        signal.pause()
    pool = address.partition("@")[2].partition("-")[0]
    silent = folder / f"silent-{pool}"
    if mode == "fail" or (silent.exists() and address in silent.read_text().splitlines()):
        print(f"ssh: connect to host {address}: No route to host", file=sys.stderr)
        return 255
    # A lie: every machine says that it serves the same host.
    machine = folder / (f"user@{pool}-0" if mode == "lie" else address)
    environment["MACHINE"] = str(machine)
    local = command.replace("/run/headrace", str(machine))
    return subprocess.run(["/bin/sh", "-c", local], env=environment, check=False).returncode


def systemctl(arguments: list[str]) -> int:
    active = Path(environment["MACHINE"]) / "active"
    verb, *options, unit = arguments
    assert unit == "headrace-gpu"
    if verb == "is-active":
        if options != ["-q"]:
            print("active" if active.exists() else "inactive")
        return 0 if active.exists() else 3
    assert options == ["--no-block"]
    if verb == "start":
        active.touch()
    else:
        assert verb == "stop"
        active.unlink(missing_ok=True)
    return 0


sys.exit({"ssh": ssh, "systemctl": systemctl}[sys.argv[1]](sys.argv[2:]))
