"""A cluster of Ceph in memory, for its S3: one monitor, one OSD and a radosgw, without root and without keys.

Not radosgw's `dbstore`, which needs no cluster: of an upload by parts it reads the last part in the place of each.
"""

import subprocess
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self
from uuid import uuid4

from headrace.stack import readiness
from headrace.stack.child import Child, Command
from headrace.stack.ports import LOOPBACK, free_port

#: From the first process to the first answer: 10 s on a quiet machine, most of it the pools that radosgw makes.
READY_S = 120.0
KEY = "test"
#: Where Debian has its programs.
PATH = "/usr/bin:/usr/sbin"
CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = v2:{host}:{mon_port}
public_network = {host}/32
ms_bind_msgr1 = false
# radosgw would ask for encryption, which needs keys.
ms_mon_client_mode = crc
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
admin_socket =
log_file =
log_to_stderr = true
mon_cluster_log_file =
pid_file =
run_dir = {folder}
crash_dir = {folder}/crash
mon_data = {folder}/mon
# It is a test's: the rest of the disk is of no account.
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
osd_data = {folder}/osd
osd_objectstore = memstore
# Debian's own begins with no slash.
osd_class_dir = /usr/lib/x86_64-linux-gnu/rados-classes
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
rgw_rados_pool_pg_num_min = 1
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint={host}:{port}
"""


class Ceph(AbstractContextManager["Ceph"]):
    """The cluster, for the length of a `with` block. Attributes: url: of its S3. `KEY` is both keys of its one user."""

    def __init__(self, folder: Path) -> None:
        """Plan it. Args: folder: a new one."""
        self._folder, self._exits = folder, ExitStack()
        self._port, self._mon_port, self._fsid = free_port(), free_port(), str(uuid4())
        self.url = f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start(self) -> None:
        for name in ("mon", "osd", "rgw", "crash"):
            (self._folder / name).mkdir(parents=True)
        ports = {"mon_port": self._mon_port, "port": self._port}
        text = CONFIGURATION.format(fsid=self._fsid, host=LOOPBACK, folder=self._folder, **ports)
        (self._folder / "ceph.conf").write_text(text)
        address = f"[v2:{LOOPBACK}:{self._mon_port}]"
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, "monmap")
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", *self._conf)
        self._begin("ceph-mon", "-i", "a")
        self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", str(uuid4()), *self._conf)
        self._begin("ceph-osd", "-i", "0")
        gateway = self._begin("radosgw", "-n", "client.rgw.a")
        gateway.wait_until(lambda: readiness.answers(self._port, "/"), READY_S)
        keys = ("--access-key", KEY, "--secret-key", KEY)
        user = ("user", "create", "--uid", KEY, "--display-name", KEY, *keys)
        self._run("radosgw-admin", "-n", "client.rgw.a", *user, *self._conf)

    @property
    def _conf(self) -> tuple[str, str]:
        return "-c", str(self._folder / "ceph.conf")

    def _begin(self, program: str, *arguments: str) -> Child:
        argv = (program, *arguments, *self._conf, "-f")
        child = Child(Command(program, argv, {"PATH": PATH}, self._folder), self._folder / "logs" / f"{program}.log")
        self._exits.callback(child.stop)
        return child

    def _run(self, *argv: str) -> None:
        done = subprocess.run(
            argv, cwd=self._folder, env={"PATH": PATH}, capture_output=True, text=True, timeout=READY_S
        )
        assert done.returncode == 0, f"{argv[0]} ended with {done.returncode}: {done.stderr}"


#: Where Debian has its programs.
PATH = "/usr/bin:/usr/sbin"
