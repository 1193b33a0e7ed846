"""The manifests: valid for the API, restricted, consistent, and with commands and a schedule that beatd accepts."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.containerfile import PACKAGING

FOLDER = PACKAGING / "kubernetes"
VERSIONS = ("1.29", "1.33")
Manifest = dict[str, Any]


def manifests(path: Path) -> list[Manifest]:
    """The resources of a kustomization and of those below it."""
    kustomization = yaml.safe_load((path / "kustomization.yaml").read_text())
    found: list[Manifest] = []
    for resource in kustomization["resources"]:
        target = (path / resource).resolve()
        assert target.exists(), f"{path.name}: {resource}"
        found += manifests(target) if target.is_dir() else list(yaml.safe_load_all(target.read_text()))
    return found


OVERLAYS = {path.name: manifests(path) for path in sorted((FOLDER / "overlays").iterdir())}
BASE = manifests(FOLDER / "base")
DEPLOYMENTS = {
    manifest["metadata"]["name"]: manifest
    for manifest in (*BASE, *OVERLAYS["demo"], *OVERLAYS["production"])
    if manifest["kind"] == "Deployment"
}
OURS = ("beatd-daemon", "beatd-worker", "beatd-web")


def pod(name: str) -> Manifest:
    return DEPLOYMENTS[name]["spec"]["template"]


def container(name: str) -> Manifest:
    [only] = pod(name)["spec"]["containers"]
    return only


@pytest.fixture(scope="module")
def valid() -> Callable[..., None]:
    """Check a manifest against the schema of a version; the import takes a second, so only who needs it pays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package, about its own ways
        from kubernetes_validate import validate
    return partial(validate, strict=True)


def beatd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beatd", *words], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_the_example_is_valid_and_its_schedule_too(version, valid, tmp_path):
    found = list(yaml.safe_load_all((PACKAGING.parent / "examples" / "kubernetes" / "beatd.yaml").read_text()))
    for manifest in found:
        valid(manifest, version)
    (tmp_path / "beat.toml").write_text(found[0]["data"]["beat.toml"])
    assert beatd("check", "--strict", str(tmp_path / "beat.toml")).returncode == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_resources_are_valid_and_named_once(overlay, version, valid):
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in OVERLAYS[overlay]]
    assert len(set(names)) == len(names)
    for manifest in OVERLAYS[overlay]:
        if manifest["kind"] != "PodMonitor":  # a resource of the Prometheus operator
            valid(manifest, version)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_are_restricted(name):
    """The "restricted" policy of the Pod Security Standards, and a root file system that nobody writes to."""
    spec = pod(name)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container(name)["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert container(name)["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_names_inside_a_deployment_exist(name):
    deployment = DEPLOYMENTS[name]
    labels = pod(name)["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"] for port in container(name)["ports"]}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container(name).get(kind, {})
        where = probe.get("httpGet") or probe.get("tcpSocket")
        assert where is None or where["port"] in ports
    volumes = {volume["name"] for volume in pod(name)["spec"].get("volumes", ())}
    for mount in container(name).get("volumeMounts", ()):
        assert mount["name"] in volumes
        assert "subPath" not in mount, "a mount of a single file never changes"


@pytest.mark.parametrize("name", OURS)
def test_probes_ask_the_process_itself(name):
    probes = container(name)
    assert probes["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert probes["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert {"name": "metrics", "containerPort": 9464} in probes["ports"]
    assert probes["livenessProbe"]["timeoutSeconds"] > 1, "an answer of the store may take a second"


@pytest.mark.parametrize("name", OURS)
def test_commands_are_accepted(name):
    args = container(name)["args"]
    done = beatd(*args, "--help")
    assert done.returncode == 0, done.stderr


def test_a_worker_gives_back_what_runs_before_it_is_killed():
    args = container("beatd-worker")["args"]
    assert float(args[args.index("--grace") + 1]) < pod("beatd-worker")["spec"]["terminationGracePeriodSeconds"]


def test_two_daemons_of_which_one_may_be_taken_away():
    assert DEPLOYMENTS["beatd-daemon"]["spec"]["replicas"] == 2
    budgets = [manifest for manifest in BASE if manifest["kind"] == "PodDisruptionBudget"]
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1
        deployment = DEPLOYMENTS[budget["metadata"]["name"]]
        assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert {budget["metadata"]["name"] for budget in budgets} == {"beatd-daemon", "beatd-worker"}


def test_what_refers_to_deployments_and_ports_finds_them():
    by_kind = {manifest["kind"]: manifest for manifest in OVERLAYS["production"]}
    assert by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
    assert "replicas" not in DEPLOYMENTS["beatd-worker"]["spec"], "the autoscaler and the manifest would fight over it"
    [endpoint] = by_kind["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    for policy in (manifest for manifest in BASE if manifest["kind"] == "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                assert any(port["port"] == known["name"] for name in OURS for known in container(name)["ports"])
    service = by_kind["Service"]
    assert service["spec"]["selector"].items() <= pod("beatd-web")["metadata"]["labels"].items()


def test_images_of_overlays_replace_those_of_the_base():
    base = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["images"]
    assert {container(name)["image"] for name in OURS} == {image["name"] for image in base}
    demo = yaml.safe_load((FOLDER / "overlays" / "demo" / "kustomization.yaml").read_text())["images"]
    assert {image["name"] for image in demo} == {image["newName"] for image in base}


def test_the_kustomization_of_the_guide_names_what_the_base_has():
    page = (PACKAGING.parent / "docs" / "how-to" / "kubernetes.md").read_text()
    guide = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    base = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())
    assert {image["name"] for image in guide["images"]} == {image["newName"] for image in base["images"]}
    assert [each["name"] for each in guide["configMapGenerator"]] == [
        each["name"] for each in base["configMapGenerator"]
    ]


def test_workers_read_the_schedule_that_is_mounted():
    example = list(yaml.safe_load_all((PACKAGING.parent / "examples" / "kubernetes" / "beatd.yaml").read_text()))
    deployments = [each for each in (*BASE, *example) if each["kind"] == "Deployment"]
    workers = [each for each in deployments if each["metadata"]["name"] == "beatd-worker"]
    assert len(workers) == 2
    for worker in workers:
        [only] = worker["spec"]["template"]["spec"]["containers"]
        assert only["args"][only["args"].index("--config") + 1] == f"{only['volumeMounts'][0]['mountPath']}/beat.toml"


def test_the_schedule_is_accepted():
    done = beatd("check", str(FOLDER / "base" / "beat.toml"))
    assert done.returncode == 0, done.stderr + done.stdout


# -- the ConfigMap as the kubelet mounts it ---------------------------------------------------------------------------


class Mount:
    """A folder as the kubelet keeps it: ``beat.toml → ..data/beat.toml``, ``..data → ..<time>``, swapped."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir()
        self.swap(text)
        (folder / "beat.toml").symlink_to("..data/beat.toml")

    def swap(self, text: str) -> None:
        old = (self.folder / "..data").resolve() if self._number else None
        self._number += 1
        new = self.folder / f"..2026_11_26_{self._number}"
        new.mkdir()
        (new / "beat.toml").write_text(text)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        if old is not None:
            (old / "beat.toml").unlink()
            old.rmdir()


ENTRIES = '[redis]\nurl = "{url}"\n[beat_schedule.{name}]\ntask = "t"\nschedule = 1.0\n'


def test_a_daemon_sees_that_a_config_map_was_swapped(tmp_path, redis_url, wait_until):
    mount = Mount(tmp_path / "etc", ENTRIES.format(url=redis_url, name="first"))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "beatd", "run", "--config", str(mount.folder / "beat.toml")]
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        for name in ("first", "second", "third"):
            if name != "first":
                mount.swap(ENTRIES.format(url=redis_url, name=name))
            wait_until(lambda name=name: f"Dispatched {name}" in log.read_text(), 20, f"a run of {name}")
        mount.swap("nonsense")
        wait_until(lambda: "beat.toml:1" in log.read_text(), 20, "the error")
        mount.swap(ENTRIES.format(url=redis_url, name="fourth"))
        wait_until(lambda: "Dispatched fourth" in log.read_text(), 20, "a run of the repaired file")
    finally:
        daemon.terminate()
        assert daemon.wait(15) == 0
