"""The part of a Kubernetes API server that the actuator uses, with the controller of ReplicaSets.

Every body is checked against the models of the official client, and every unknown path, parameter or field is refused
and remembered in `problems`.
"""

import json
import re
import threading
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kubernetes import client
from pydantic import BaseModel, ValidationError

from headrace.config import PoolSettings, ScalingSettings, Settings
from scheduler.actuators import load
from scheduler.actuators.base import Actuator
from tests.contracts.providers.gate import Gate
from tests.contracts.providers.provider import MOST, PATIENCE_S, POOLS

NAMESPACE = "headrace"
COST = "controller.kubernetes.io/pod-deletion-cost"
MERGE = {"application/merge-patch+json", "application/strategic-merge-patch+json"}
Object = dict[str, Any]


def without_nulls(value: Any) -> Any:
    """What a merge patch sets. A null deletes, and no model has it."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return value


def merge(old: Object, patch: Object) -> None:
    """JSON merge patch, RFC 7386."""
    for name, value in patch.items():
        if value is None:
            old.pop(name, None)
        elif isinstance(value, dict):
            merge(old.setdefault(name, {}), value)
        else:
            old[name] = value


class ApiServer(Gate):
    """Deployments `worker-POOL` and their pods.

    Attributes:
        quota: pods that a Deployment's controller can make; the others stay unmade.
        starts_ready: whether new pods are ready at once.
        calls: method, path and body of each request, oldest first.
        conflicts: how many of the next patches of a scale find that the controller has just changed the Deployment.
    """

    def __init__(self) -> None:
        self.replicas = dict.fromkeys(POOLS, 0)
        self.quota = dict.fromkeys(POOLS, MOST)
        self.pods: dict[str, Object] = {}
        self.starts_ready = True
        self.calls: list[tuple[str, str, Any]] = []
        self.problems: list[str] = []
        self.conflicts = 0
        self._version = count(1)
        self._versions = dict.fromkeys(POOLS, 0)
        self._number = count(1)
        self._lock = threading.Lock()
        super().__init__()

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        with self._lock:
            try:
                status, answer = self._route(method, path, headers, json.loads(body) if body else None)
            except ValidationError as error:
                self.problems.append(f"{method} {path}: {error}")
                status, answer = self._status(422, str(error))
            for pool in POOLS:
                self._control(pool)
        return status, "application/json", json.dumps(answer).encode()

    def _route(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Object]:
        parts = urlsplit(path)
        self.calls.append((method, parts.path, body))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if method == "PATCH" and headers.get("Content-Type") not in MERGE:
            return self._problem(415, f"{path}: a patch of type {headers.get('Content-Type')}")
        scale = re.fullmatch(rf"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/worker-(\w+)/scale", parts.path)
        pods = re.fullmatch(rf"/api/v1/namespaces/{NAMESPACE}/pods(?:/([\w-]+))?", parts.path)
        if scale and scale[1] in POOLS and not query:
            return self._scale(method, scale[1], body)
        if pods and method == "GET" and not pods[1] and query.keys() == {"labelSelector"}:
            return 200, self._list(query["labelSelector"])
        if pods and pods[1] and not query:
            return self._pod(method, pods[1], body)
        return self._problem(404, f"{method} {path} is unknown")

    def _scale(self, method: str, pool: str, body: Any) -> tuple[int, Object]:
        if method == "PATCH":
            self._check(client.V1Scale, body)
            given = body.get("metadata", {}).get("resourceVersion")
            if self.conflicts:
                self.conflicts -= 1
                self._versions[pool] = next(self._version)
            if given is not None and given != str(self._versions[pool]):
                return self._status(
                    409, "the object has been modified; please apply your changes to the latest version"
                )
            self.replicas[pool] = body["spec"]["replicas"]
            self._versions[pool] = next(self._version)
        elif method != "GET":
            return self._problem(405, method)
        replicas = 7 if self.mode == "lie" else self.replicas[pool]
        return 200, {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {"name": f"worker-{pool}", "resourceVersion": str(self._versions[pool])},
            # As Go's JSON leaves a zero out.
            "spec": {"replicas": replicas} if replicas else {},
            "status": {"replicas": len(self.active(pool)), "selector": f"app=worker-{pool}"},
        }

    def _list(self, selector: str) -> Object:
        found = [pod for pod in self.pods.values() if f"app={pod['metadata']['labels']['app']}" == selector]
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found}

    def _pod(self, method: str, name: str, body: Any) -> tuple[int, Object]:
        if name not in self.pods:
            return self._status(404, f'pods "{name}" not found')
        pod = self.pods[name]
        if method == "PATCH":
            self._check(client.V1Pod, body)
            merge(pod, body)
        elif method == "DELETE":
            self._check(client.V1DeleteOptions, body or {})
            self._end(name)
        else:
            return self._problem(405, method)
        return 200, pod

    def _check(self, model: type[BaseModel], body: Object) -> None:
        model.model_validate(without_nulls(body), extra="forbid", strict=True)

    def _problem(self, status: int, message: str) -> tuple[int, Object]:
        self.problems.append(message)
        return self._status(status, message)

    def _status(self, status: int, message: str) -> tuple[int, Object]:
        return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}

    def active(self, pool: str) -> list[str]:
        return [
            name
            for name, pod in self.pods.items()
            if pod["metadata"]["labels"]["app"] == f"worker-{pool}"
            and "deletionTimestamp" not in pod["metadata"]
            and pod["status"]["phase"] != "Failed"
        ]

    def _control(self, pool: str) -> None:
        """What the controller of ReplicaSets does. Source: its documentation, "scaling a ReplicaSet"."""
        active = self.active(pool)
        for _ in range(min(self.replicas[pool], self.quota[pool]) - len(active)):
            self._begin(pool)

        def first_to_end(name: str) -> tuple[bool, int, int]:
            pod = self.pods[name]
            cost = int(pod["metadata"]["annotations"].get(COST, 0))
            return self.is_ready(name), cost, -int(name.rpartition("-")[2])

        surplus = max(0, len(active) - self.replicas[pool])
        for name in sorted(active, key=first_to_end)[:surplus]:
            self._end(name)

    def is_ready(self, name: str) -> bool:
        return any(
            each["type"] == "Ready" and each["status"] == "True" for each in self.pods[name]["status"]["conditions"]
        )

    def set_ready(self, name: str, is_ready: bool) -> None:
        self.pods[name]["status"] = {
            "phase": "Running" if is_ready else "Pending",
            "conditions": [{"type": "Ready", "status": str(is_ready)}],
        }

    def _begin(self, pool: str) -> None:
        name = f"worker-{pool}-{next(self._number)}"
        labels = {"app": f"worker-{pool}"}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": {}}
        self.pods[name] = {"metadata": metadata, "spec": {"containers": [{"name": "worker"}]}}
        self.set_ready(name, self.starts_ready)

    def _end(self, name: str) -> None:
        """The pod has its grace period; tests remove it by `vanish`."""
        self.pods[name]["metadata"].setdefault("deletionTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    def vanish(self) -> None:
        """Let the grace periods pass."""
        with self._lock:
            self.pods = {k: pod for k, pod in self.pods.items() if "deletionTimestamp" not in pod["metadata"]}


class Cluster:
    """One API server, and a kubeconfig of it."""

    def __init__(self, folder: Path) -> None:
        self.api = ApiServer()
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "clusters": [{"name": "test", "cluster": {"server": self.api.url}}],
                    "users": [{"name": "test", "user": {"token": "a token"}}],
                }
            )
        )

    def settings(self, timeout_s: float = PATIENCE_S) -> Settings:
        section = {
            "deployments": {pool: f"worker-{pool}" for pool in POOLS},
            "namespace": NAMESPACE,
            "kubeconfig": str(self.kubeconfig),
            "timeout_s": timeout_s,
        }
        scaling = ScalingSettings.model_validate({"actuator": "kubernetes", "kubernetes": section})
        return Settings(pools={pool: PoolSettings() for pool in POOLS}, scaling=scaling)

    def actuator(self, timeout_s: float = PATIENCE_S) -> Actuator:
        return load(self.settings(timeout_s))

    def live(self, pool: str) -> set[str]:
        return set(self.api.active(pool))

    def allow(self, pool: str, most: int) -> None:
        self.api.quota[pool] = most

    def fail(self) -> None:
        self.api.set("fail")

    def hang(self) -> None:
        self.api.set("hang")

    def lie(self) -> None:
        self.api.set("lie")

    def work(self) -> None:
        self.api.set("work")

    def stop(self) -> None:
        self.api.stop()
        assert not self.api.problems
