"""Manifests: of Kubernetes' own schema, and with the walls that we promise."""

import re

import kubernetes_validate
import pytest
from deploy_files import DEPLOY, MANIFESTS, SWITCHES, every_document

VERSIONS = ("1.31", "1.34")
DOCUMENTS = [
    pytest.param(body, id=f"{path.stem}-{body['kind']}-{body['metadata']['name']}")
    for path, body in every_document()
]


def pods():
    for _, body in every_document():
        if body["kind"] == "Pod":
            yield body["metadata"], body["spec"]
        elif body["kind"] == "StatefulSet":
            yield body["spec"]["template"]["metadata"], body["spec"]["template"]["spec"]


def containers():
    return [c for _, spec in pods() for c in (*spec["containers"], *spec.get("initContainers", []))]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("body", DOCUMENTS)
def test_a_manifest_is_of_kubernetes_schema(body, version):
    kubernetes_validate.validate(body, version, strict=True)


def test_every_container_of_ours_is_quiet():
    for container in containers():
        found = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        assert found.items() >= SWITCHES.items(), container["name"]


def test_no_secret_stands_in_an_environment():
    for container in containers():
        for entry in container["env"]:
            assert "valueFrom" not in entry
            assert not re.search("PASS|SECRET|TOKEN|KEY|URL", entry["name"])


def test_every_container_has_walls():
    for container in containers():
        walls = container["securityContext"]
        assert walls["readOnlyRootFilesystem"], container["name"]
        assert walls["allowPrivilegeEscalation"] is False
        assert walls["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]
        assert re.fullmatch(r"[a-z-]+:[0-9]+\.[0-9.]+(-[a-z]+)?", container["image"])


def test_only_the_owner_at_work_is_root():
    for meta, spec in pods():
        if meta["labels"]["app.kubernetes.io/name"] == "fondaco-owner":
            continue
        assert spec["securityContext"]["runAsNonRoot"]
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            assert "add" not in container["securityContext"]["capabilities"]
            assert container["securityContext"].get("runAsUser") != 0


def test_no_pod_speaks_to_kubernetes():
    for _, spec in pods():
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))


def test_agent_and_courier_share_the_socket_and_nothing_else():
    (spec,) = [s for m, s in pods() if m["labels"]["app.kubernetes.io/name"] == "fondaco-silo"]
    agent, courier = spec["containers"]
    users = [c["securityContext"]["runAsUser"] for c in (agent, courier)]
    mounted = [{mount["name"] for mount in c["volumeMounts"]} for c in (agent, courier)]
    assert users == [10002, 10003]
    assert mounted[0] & mounted[1] == {"link"}
    assert "home" not in mounted[1]
    assert spec["shareProcessNamespace"] is False


def test_the_agent_takes_the_network_from_itself_before_it_starts():
    (spec,) = [s for m, s in pods() if m["labels"]["app.kubernetes.io/name"] == "fondaco-silo"]
    assert spec["containers"][0]["command"][:3] == [
        "python",
        "-m",
        "fondaco.client.boundary.handover",
    ]


def test_every_pod_has_a_policy_that_lets_in_the_fleet_only():
    policies = {
        body["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]: body["spec"]
        for _, body in every_document()
        if body["kind"] == "NetworkPolicy"
    }
    assert set(policies) == {meta["labels"]["app.kubernetes.io/name"] for meta, _ in pods()}
    for name, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        ports = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
        assert ports == ([9443] if name == "fondaco-coordinator" else [])
    assert policies["fondaco-coordinator"]["egress"] == []
    reached = {
        name: [p["port"] for rule in policies[name]["egress"] for p in rule["ports"]]
        for name in ("fondaco-silo", "fondaco-owner")
    }
    assert reached == {"fondaco-silo": [9443, 53, 53], "fondaco-owner": [5432, 9443, 53, 53]}


def test_only_the_proxys_port_is_a_service():
    services = [body for _, body in every_document() if body["kind"] == "Service"]
    assert [port["port"] for body in services for port in body["spec"]["ports"]] == [9443]


def test_the_proxys_file_is_the_one_of_the_image():
    (config,) = [body for _, body in every_document() if body["kind"] == "ConfigMap"]
    ours = (DEPLOY / "proxy" / "nginx.conf").read_text()
    theirs = config["data"]["nginx.conf"].replace("/hub/home/", "/hub/")
    assert theirs.strip() == ours.strip()


def test_three_manifests_are_there():
    assert [path.name for path in MANIFESTS] == ["coordinator.yaml", "owner.yaml", "silo.yaml"]
