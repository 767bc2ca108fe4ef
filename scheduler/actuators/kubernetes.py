"""Deployments of a Kubernetes cluster as an actuator, one for each pool. The only importer of `kubernetes`.

A machine is a pod, by its name, which its worker learns from the downward API. docs/actuators.md has a manifest.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException, OpenApiException
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from headrace.config import Settings
from headrace.config.scaling import KubernetesSettings
from headrace.errors import ActuatorUnavailable, ConfigError
from scheduler.actuators.base import Actuator, HostMachine, HostOrder

#: A ReplicaSet ends the ready pods with the lowest cost first. Other pods cost 0.
#: Source: the documentation of ReplicaSets, "pod deletion cost".
_COST = "controller.kubernetes.io/pod-deletion-cost"
_LOWEST = str(-(2**31))
#: Phases of pods that ended. Their ReplicaSet has replaced them already.
_ENDED = frozenset({"Succeeded", "Failed"})
#: How often a change of replicas is tried while others change the Deployment, as its controller does.
_TRIES = 5
_NOT_FOUND, _CONFLICT = 404, 409


def build(settings: Settings) -> "KubernetesActuator":
    """Make the actuator. Raises: ConfigError: a pool has no Deployment, or no cluster's configuration is found."""
    section = settings.scaling.kubernetes
    for pool in settings.own_pools:
        if pool not in section.deployments:
            message = f"The actuator 'kubernetes' needs the Deployment of pool '{pool}': set [scaling.kubernetes]."
            raise ConfigError(message, param="scaling.kubernetes.deployments")
    configuration = client.Configuration()
    # The sweep calls again after a failure. urllib3 would repeat a call that hangs, and wait each time.
    configuration.retries = 0
    try:
        if section.kubeconfig is None:
            with suppress(ConfigException):
                config.load_incluster_config(client_configuration=configuration)
                return KubernetesActuator(section, client.ApiClient(configuration))
        config.load_kube_config(section.kubeconfig, client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, ValueError) as error:
        raise ConfigError(f"The actuator 'kubernetes' knows no cluster: {error}", param="scaling.kubernetes") from error
    return KubernetesActuator(section, client.ApiClient(configuration))


class KubernetesActuator(Actuator):
    """Scales the Deployment of a pool, and ends named pods."""

    name = "kubernetes"
    names_hosts = False

    def __init__(self, section: KubernetesSettings, api: client.ApiClient) -> None:
        """Take the Deployments of the pools, and the client of their cluster."""
        self._deployments: Mapping[str, str] = section.deployments
        self._namespace = section.namespace
        self._timeout_s = section.timeout_s
        # It waits for a connection and then for an answer.
        self.patience_s = 2 * section.timeout_s
        self._apps = client.AppsV1Api(api)
        self._core = client.CoreV1Api(api)

    def machines(self, pool: str) -> list[HostMachine]:
        """List the Deployment's pods, also those that wait for a node."""
        return [HostMachine(pod.metadata.name, is_ending=not _lives(pod)) for pod in self._pods(pool)]

    def order(self, pool: str, orders: Sequence[HostOrder], present: Sequence[HostMachine]) -> list[HostMachine]:
        """Raise the replicas to the live pods of `present` and one for each order, never lower them."""
        if orders:
            wanted = sum(not machine.is_ending for machine in present) + len(orders)
            self._change_replicas(pool, lambda replicas: max(replicas, wanted))
        return []

    def withdraw(self, pool: str, awaited: int, present: Sequence[HostMachine]) -> None:
        """Lower the replicas to the live pods and `awaited` more: a quota may keep the others from being made."""
        wanted = sum(not machine.is_ending for machine in present) + awaited
        live = sum(map(_lives, self._pods(pool)))
        self._change_replicas(pool, lambda replicas: min(replicas, max(wanted, live)))

    def launch_times(self, pool: str, machines: Sequence[HostMachine]) -> Mapping[str, datetime]:
        """When these pods were made."""
        names = {machine.provider_id for machine in machines}
        made = {pod.metadata.name: pod.metadata.creation_timestamp for pod in self._pods(pool)}
        return {name: at for name, at in made.items() if name in names and at is not None}

    def release(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """End these pods, and lower the replicas to the other live ones."""
        if not machines:
            return
        names = {machine.provider_id for machine in machines}
        live = [pod for pod in self._pods(pool) if _lives(pod)]
        others = [pod for pod in live if pod.metadata.name not in names]
        ours = [pod.metadata.name for pod in live if pod.metadata.name in names]
        if not ours:
            return
        self._annotate(pool, ours, _LOWEST)

        # A number and not a difference: two processes that release the same pods must not lower twice. Replicas whose
        # pods are not made yet get lost by it; the next sweep orders them again.
        def lower(replicas: int) -> int:
            return min(replicas, len(others))

        # A ReplicaSet ends the pods with the lowest cost, but before them those that are not ready. So while another
        # pod is not ready, ours are ended first. The ReplicaSet then begins a pod in their place, and ends that one.
        if all(map(_is_ready, others)):
            self._change_replicas(pool, lower)
            self._delete(pool, ours)
        else:
            self._delete(pool, ours)
            self._change_replicas(pool, lower)

    def mark_draining(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """Give these pods the lowest cost of deletion, so that no other one ends if something else lowers replicas."""
        self._annotate(pool, [machine.provider_id for machine in machines], _LOWEST)

    def unmark_draining(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """Take the cost away."""
        self._annotate(pool, [machine.provider_id for machine in machines], None)

    def _pods(self, pool: str) -> list[Any]:
        """Read the Deployment's pods, without those that ended by themselves."""
        selector = self._scale(pool).status.selector
        if not selector:
            raise self._refused(pool, "has no selector: its pods cannot be told from others")
        found = self._call(pool, self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        return [pod for pod in found.items if pod.status.phase not in _ENDED]

    def _scale(self, pool: str) -> Any:
        return self._call(pool, self._apps.read_namespaced_deployment_scale, self._deployment(pool), self._namespace)

    def _change_replicas(self, pool: str, change: Callable[[int], int]) -> None:
        """Change the number of replicas, unless someone else changed the Deployment meanwhile: then read it again."""
        for left in reversed(range(_TRIES)):
            scale = self._scale(pool)
            before = scale.spec.replicas or 0
            after = max(0, change(before))
            if after == before:
                return
            # The version makes it a conflict if the Deployment has changed since.
            version = {"resourceVersion": scale.metadata.resource_version}
            body = {"metadata": version, "spec": {"replicas": after}}
            patch = self._apps.patch_namespaced_deployment_scale
            if self._call(
                pool, patch, self._deployment(pool), self._namespace, body, passes=_CONFLICT if left else None
            ):
                return

    def _annotate(self, pool: str, pods: Sequence[str], cost: str | None) -> None:
        body = {"metadata": {"annotations": {_COST: cost}}}
        for pod in pods:
            self._call(pool, self._core.patch_namespaced_pod, pod, self._namespace, body, passes=_NOT_FOUND)

    def _delete(self, pool: str, pods: Sequence[str]) -> None:
        for pod in pods:
            self._call(pool, self._core.delete_namespaced_pod, pod, self._namespace, passes=_NOT_FOUND)

    def _deployment(self, pool: str) -> str:
        if pool not in self._deployments:
            raise ActuatorUnavailable(f"Pool '{pool}' has no Deployment: set [scaling.kubernetes] deployments.")
        return self._deployments[pool]

    def _call(
        self, pool: str, method: Callable[..., Any], *arguments: Any, passes: int | None = None, **more: Any
    ) -> Any:
        """Make one request. None if it failed with the status `passes`."""
        try:
            return method(*arguments, _request_timeout=self._timeout_s, **more)
        except ApiException as error:
            if passes is not None and error.status == passes:
                return None
            raise self._refused(pool, f"failed: {_said(error)}") from error
        except (OpenApiException, HTTPError, ValueError, TypeError) as error:
            # ValueError and TypeError: an answer that the client's models do not admit.
            raise self._refused(pool, f"failed: {error}") from error

    def _refused(self, pool: str, why: str) -> ActuatorUnavailable:
        return ActuatorUnavailable(f"The Deployment '{self._deployments.get(pool)}' of pool '{pool}' {why}.")


def _lives(pod: Any) -> bool:
    return pod.metadata.deletion_timestamp is None


def _is_ready(pod: Any) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or ())


def _said(error: ApiException) -> str:
    """What the API server said, in its own words where it sent them."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        message = ""
    return f"{error.status} {error.reason}" + (f": {message}" if message else "")
