"""The actuator `kubernetes` on a stand-in for the API server, which checks each body and acts as a ReplicaSet does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from headrace.config import PROJECT_ROOT, PoolSettings, ScalingSettings, Settings
from headrace.errors import ActuatorUnavailable, ConfigError
from scheduler.actuators import load
from scheduler.actuators.base import HostMachine, HostOrder
from tests.contracts.providers.kubernetes import COST, Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.stop()


def order(cluster: Cluster, count: int) -> list[HostMachine]:
    actuator = cluster.actuator()
    actuator.order("chat", [HostOrder(f"h-{number}", "chat") for number in range(count)], actuator.machines("chat"))
    return actuator.machines("chat")


def changes(cluster: Cluster) -> list[str]:
    """What was changed since the last look: `cost`, `replicas` or `delete`."""
    kinds = [
        "delete" if method == "DELETE" else "replicas" if path.endswith("/scale") else "cost"
        for method, path, _ in cluster.api.calls
        if method != "GET"
    ]
    cluster.api.calls.clear()
    return kinds


def test_a_pod_gets_its_cost_before_the_replicas_go_down(cluster: Cluster) -> None:
    machines = order(cluster, 3)
    changes(cluster)
    cluster.actuator().release("chat", machines[:1])

    assert changes(cluster) == ["cost", "replicas", "delete"]
    assert cluster.live("chat") == {machine.provider_id for machine in machines[1:]}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_ready_pod_is_released_although_another_one_is_not_ready(cluster: Cluster, index: int) -> None:
    machines = order(cluster, 3)
    others = [machine for machine in machines if machine is not machines[index]]
    cluster.api.starts_ready = False
    cluster.api.set_ready(others[0].provider_id, False)
    changes(cluster)
    cluster.actuator().release("chat", [machines[index]])

    # Lowered first, the replicas would cost the pod that is not ready.
    assert changes(cluster) == ["cost", "delete", "replicas"]
    assert cluster.live("chat") == {machine.provider_id for machine in others}
    assert cluster.api.replicas["chat"] == 2


def test_a_pod_that_ends_is_listed_until_it_is_gone(cluster: Cluster) -> None:
    (machine,) = order(cluster, 1)
    actuator = cluster.actuator()
    actuator.release("chat", [machine])
    assert actuator.machines("chat") == [HostMachine(machine.provider_id, is_ending=True)]

    cluster.api.vanish()
    assert actuator.machines("chat") == []


def test_a_pod_that_was_evicted_is_no_machine(cluster: Cluster) -> None:
    machines = order(cluster, 2)
    cluster.api.pods[machines[0].provider_id]["status"] = {"phase": "Failed", "reason": "Evicted", "conditions": []}
    # Its ReplicaSet has made another one in its place.
    assert {each.provider_id for each in cluster.actuator().machines("chat")} == cluster.live("chat")
    assert machines[0].provider_id not in cluster.live("chat")


def test_draining_is_marked_and_unmarked(cluster: Cluster) -> None:
    (machine,) = order(cluster, 1)
    annotations = cluster.api.pods[machine.provider_id]["metadata"]["annotations"]
    cluster.actuator().mark_draining("chat", [machine])
    assert annotations == {COST: "-2147483648"}

    cluster.actuator().unmark_draining("chat", [machine])
    assert annotations == {}


def test_a_deployment_that_changes_meanwhile_is_read_again(cluster: Cluster) -> None:
    cluster.api.conflicts = 3
    assert len(order(cluster, 2)) == 2
    assert changes(cluster) == ["replicas"] * 4


def test_a_deployment_that_never_rests_is_reported(cluster: Cluster) -> None:
    cluster.api.conflicts = 100
    with pytest.raises(ActuatorUnavailable, match="409 Conflict: the object has been modified"):
        order(cluster, 2)
    assert cluster.live("chat") == set()


def test_each_pool_needs_a_deployment(cluster: Cluster) -> None:
    settings = cluster.settings()
    pools = {**settings.pools, "more": PoolSettings()}
    with pytest.raises(ConfigError, match="needs the Deployment of pool 'more'"):
        load(settings.model_copy(update={"pools": pools}))


def test_a_kubeconfig_must_be_there(tmp_path: Path) -> None:
    section = {"deployments": {"chat": "worker"}, "kubeconfig": str(tmp_path / "none")}
    scaling = ScalingSettings.model_validate({"actuator": "kubernetes", "kubernetes": section})
    with pytest.raises(ConfigError, match="knows no cluster"):
        load(Settings(scaling=scaling))


def test_the_manifests_of_the_docs_are_ones() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (PROJECT_ROOT / "docs" / "actuators.md").read_text(), re.M | re.S)
    manifests = [yaml.safe_load(block) for block in blocks]
    models = {"Deployment": client.V1Deployment, "Role": client.V1Role}
    found = [manifest for manifest in manifests if manifest.get("kind") in models]

    assert [manifest["kind"] for manifest in found] == ["Deployment", "Role"]
    for manifest in found:
        models[manifest["kind"]].model_validate(manifest, extra="forbid")
