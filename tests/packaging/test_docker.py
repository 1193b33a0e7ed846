"""The image: what hadolint would say of its Dockerfile, and what its steps make, run as a container would run it.

No container engine is needed: the steps run in a folder, and its processes in namespaces of their own, with another
user id, without a home directory, on a read-only root file system, and as process 1.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from beatd.schedules.duration import duration_ms
from tests.packaging.containerfile import PACKAGING, ROOT, copied, environment, ignored, last, read

BUILD, FINAL = STAGES = read(PACKAGING / "docker" / "Dockerfile")
SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)


# -- the file ---------------------------------------------------------------------------------------------------------


def test_images_are_pinned_and_alike():
    bases = [stage[0].rest.partition(" AS ")[0] for stage in STAGES]
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:\$\{PYTHON\}-slim-\w+", bases[0])
    assert re.search(r"^ARG PYTHON=3\.1[1-9]$", (PACKAGING / "docker" / "Dockerfile").read_text(), re.MULTILINE)


def test_the_user_is_a_number_and_not_root():
    user, _, group = last(FINAL, "USER").rest.partition(":")
    assert int(user) > 1000
    assert group == "0", "any user id of this group may run it, as on OpenShift"


def test_commands_are_lists_so_that_no_shell_swallows_signals():
    assert last(FINAL, "ENTRYPOINT").words == ["/usr/bin/tini", "--", "beatd"]
    assert last(FINAL, "CMD").words == ["run"]
    check = last(FINAL, "HEALTHCHECK").rest
    assert yaml.safe_load(check.partition("CMD ")[2]) == ["beatd", "healthcheck"]


def test_packages_of_the_system_leave_nothing_behind():
    [install] = [each.rest for each in FINAL if each.word == "RUN"]
    assert "apt-get update" in install
    assert "--no-install-recommends" in install
    assert install.endswith("rm -rf /var/lib/apt/lists/*")


def test_there_is_no_add_no_secret_and_every_folder_is_absolute():
    for instruction in (*BUILD, *FINAL):
        assert instruction.word != "ADD"
        assert not (instruction.word in {"ARG", "ENV"} and SECRET.search(instruction.rest)), instruction
        assert instruction.word != "WORKDIR" or instruction.rest.startswith("/")


def test_what_is_copied_is_in_the_context_and_nothing_else_is():
    for path in copied(BUILD):
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    for path in (".git", ".venv", "tests", "docs", "packaging/docker", "beatd/__pycache__", "config", ".env"):
        assert ignored(path), path


def test_the_lock_of_the_image_has_what_the_package_needs_in_the_versions_of_the_tests():
    """With hashes, so that pip installs nothing else. ``make lock`` writes it."""
    text = (PACKAGING / "docker" / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([^ \n]+)", text, re.MULTILINE))
    tested = re.findall(r"^([\w.-]+)==(\S+)", (PACKAGING / "requirements.lock").read_text(), re.MULTILINE)
    assert {name: version for name, version in tested if locked.get(normal(name), version) != version} == {}
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) > len(locked)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"^IMAGE_EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert extras
    needed = [
        *project["dependencies"],
        *(each for name in extras[1].split() for each in project["optional-dependencies"][name]),
    ]
    assert {normal(re.split(r"[\[>=<;~! ]", each)[0]) for each in needed} - locked.keys() == set()


def test_the_debian_package_has_what_the_image_has():
    """Its environment has no pip, so that nothing can be added to it later."""
    image = re.search(r"^IMAGE_EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    package = re.search(r"^EXTRAS := (.*)$", (PACKAGING / "debian" / "rules").read_text(), re.MULTILINE)
    assert image
    assert package
    assert set(image[1].split()) - set(package[1].split(",")) == set()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# -- compose ----------------------------------------------------------------------------------------------------------

COMPOSE = yaml.safe_load((PACKAGING / "docker" / "compose.yaml").read_text())
OURS = ("daemon", "worker", "web")


def test_compose_is_valid_for_its_schema():
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    command.append(PACKAGING / "docker" / "compose.yaml")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_names_what_it_uses():
    services = COMPOSE["services"]
    assert services.keys() == {"valkey", "daemon", "worker", "web", "prometheus", "grafana"}
    for name, service in services.items():
        depends = service.get("depends_on", {})
        assert set(depends) <= services.keys(), name
        assert "image" in service, name
        assert ":" in service["image"] or service["image"] == "beatd", f"{name}: an image without a version"
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert (PACKAGING / "docker" / source).resolve().exists(), source
            else:
                assert source in COMPOSE["volumes"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} would be open to other machines"


def test_compose_runs_our_processes_without_rights():
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "10001:0"
        assert service["build"]["dockerfile"] == "packaging/docker/Dockerfile"
        assert (PACKAGING / "docker" / service["build"]["context"]).resolve() == ROOT
    replicas = {name: COMPOSE["services"][name].get("deploy", {}).get("replicas", 1) for name in OURS}
    assert replicas == {"daemon": 2, "worker": 2, "web": 1}


def test_a_worker_of_compose_ends_before_it_is_killed():
    worker = COMPOSE["services"]["worker"]
    grace = duration_ms(worker["command"][worker["command"].index("--grace") + 1])
    assert grace < duration_ms(worker["stop_grace_period"])


def test_compose_has_a_schedule_that_beatd_accepts():
    command = [sys.executable, "-m", "beatd", "check", str(PACKAGING / "docker" / "beat.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OURS)
def test_compose_gives_options_that_exist(name):
    words = COMPOSE["services"][name]["command"]
    done = subprocess.run(
        [sys.executable, "-m", "beatd", *words, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


# -- what the steps make ----------------------------------------------------------------------------------------------

UID = 12345
WITHOUT_RIGHTS = ("--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
AS_OTHER = ("setpriv", f"--reuid={UID}", "--regid=0", "--clear-groups", *WITHOUT_RIGHTS)
IN_ROOT = r"""
set -e
mkdir -p "$ROOT"
mount --rbind / "$ROOT"
mount --make-rslave "$ROOT"
mount --bind "$OPT" "$ROOT/opt"
mount -t tmpfs -o mode=1777 tmp "$ROOT/tmp"
cp "$CONFIG" "$ROOT/tmp/beat.toml"
chmod 0644 "$ROOT/tmp/beat.toml"
mount -o remount,ro,bind "$ROOT"
mount -t proc proc "$ROOT/proc"
exec chroot "$ROOT" env -i "$@"
"""


def for_everybody() -> str:
    """A Python that other users can run: not one below a home directory."""
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        path = Path(candidate).resolve()
        new = [str(path), "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
        words = [*AS_OTHER, "sh", "-c", '"$@"', "sh", *new]  # setpriv itself still has its rights when it looks
        if path.exists() and subprocess.run(words, cwd="/", check=False, capture_output=True).returncode == 0:
            return str(path)
    pytest.skip("no Python 3.11 that every user can run")


def left_out(folder: str, names: list[str]) -> list[str]:
    """What ``.dockerignore`` keeps out of a folder."""
    return [name for name in names if ignored(str(Path(folder).relative_to(ROOT) / name))]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The folder that becomes ``/opt``: the RUN steps of the build stage, on the files that COPY takes."""
    folder = tmp_path_factory.mktemp("image")
    source, opt = folder / "src", folder / "opt"
    opt.mkdir()
    for path in copied(BUILD):
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path, ignore=left_out)
        else:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, source / path)
    tools = folder / "tools"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec {for_everybody()} "$@"\n')
    (tools / "python").chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "OPT": str(opt)}
    env |= {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "HTTP", "http", "SSL"))}
    for step in (each.rest for each in BUILD if each.word == "RUN"):
        mounted = ["unshare", "--mount", "sh", "-c", f'mount --bind "$OPT" /opt && {step}']
        done = subprocess.run(mounted, cwd=source, env=env, capture_output=True, text=True, check=False, timeout=300)
        if "No matching distribution" in done.stderr or "NewConnectionError" in done.stderr:
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stdout + done.stderr
    return opt


@pytest.fixture
def container(image, tmp_path, wait_until):
    """``container("run", …)``: the image's ENTRYPOINT with these words, as process 1."""
    running = []

    def start(*words, config, **env):
        (tmp_path / "given.toml").write_text(config)
        variables = environment(FINAL) | {"BEATD_CONFIG": "/tmp/beat.toml"} | env
        variables["PATH"] = "/opt/beatd/bin:/usr/bin:/bin"
        inside = [f"{key}={value}" for key, value in variables.items()]
        inside += [*AS_OTHER, *last(FINAL, "ENTRYPOINT").words, *words]
        log = tmp_path / f"log{len(running)}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", IN_ROOT, "sh", *inside],
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ROOT": str(tmp_path / "root"), "OPT": str(image)}
                | {"CONFIG": str(tmp_path / "given.toml")},
                stdout=output,
                stderr=output,
            )
        running.append(process)
        return process, log

    yield start
    for process in running:
        process.kill()
        process.wait(10)


def children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def expect(log, pattern, wait_until, timeout=20):
    try:
        wait_until(lambda: re.search(pattern, log.read_text()), timeout, pattern)
    except BaseException:
        print(log.read_text())
        raise


CONFIG = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "beatd.command"
schedule = 1.0
args = ["{command}"]
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # the image is built by the first of them
@pytest.mark.needs("unshare", "setpriv", "tini", "ps")
@pytest.mark.namespaces
def test_a_daemon_runs_as_process_1_with_any_user_and_reads_only(container, redis_url, free_port, image, wait_until):
    port = free_port()
    listen = f"127.0.0.1:{port}"
    process, log = container("run", config=CONFIG.format(url=redis_url, command="true"), BEATD_METRICS_LISTEN=listen)
    expect(log, "Dispatched tick", wait_until)
    [init] = children(process.pid)
    assert Path(f"/proc/{init}/comm").read_text() == "tini\n"
    [daemon] = children(init)
    status = Path(f"/proc/{daemon}/status").read_text()
    assert re.search(rf"^Uid:\s+{UID}\s+{UID}\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NSpid:\s+\d+\s+\d+$", status, re.MULTILINE)
    check = yaml.safe_load(last(FINAL, "HEALTHCHECK").rest.partition("CMD ")[2])
    where = {"PATH": "/usr/bin:/bin", "OPT": str(image), "BEATD_METRICS_LISTEN": listen}
    healthy = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount --bind "$OPT" /opt && PATH=/opt/beatd/bin:$PATH "$@"', "sh", *check],
        env=where,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (healthy.returncode, healthy.stdout) == (0, "ok\n"), healthy.stderr
    os.kill(init, signal.SIGTERM)
    assert process.wait(15) == 0
    text = log.read_text()
    assert "Released the lease" in text
    assert "Traceback" not in text
    assert "Read-only" not in text


@pytest.mark.slow
@pytest.mark.timeout(400)  # the image is built by the first of them
@pytest.mark.needs("unshare", "setpriv", "tini", "ps")
@pytest.mark.namespaces
def test_a_worker_runs_tasks_there_and_leaves_no_zombies(container, redis_url, free_port, wait_until, tmp_path):
    config = CONFIG.format(url=redis_url, command="true")
    words = ("worker", "--config", "/tmp/beat.toml", "--builtin", "command", "-c", "1")
    process, log = container(*words, config=config, BEATD_METRICS_LISTEN=f"127.0.0.1:{free_port()}")
    expect(log, "ready", wait_until)
    orphan = "import subprocess; subprocess.Popen(['sleep', '0.2'], start_new_session=True)"
    send = "import sys; from beatd import App; App('x', broker=sys.argv[1]).send_task("
    send += "'beatd.command', args=[['/opt/beatd/bin/python', '-c', sys.argv[2]]])"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", send, redis_url, orphan], check=True, timeout=30)
    expect(log, r"(succeeded[\s\S]*){3}", wait_until)
    [init] = children(process.pid)

    def only_the_worker():
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children(init)]
        return len(states) == 1 and "Z" not in states

    wait_until(only_the_worker, what="the end of what tasks have left behind")
    os.kill(init, signal.SIGTERM)
    assert process.wait(20) == 0
    assert "Traceback" not in log.read_text()
