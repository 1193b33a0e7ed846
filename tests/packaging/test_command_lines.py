"""Command lines of beatd in all that is packaged: each is parsed by the command that it starts, values included."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from beatd.cli import main
from tests.packaging.containerfile import PACKAGING, ROOT, last, read

SHELL_WORD = re.compile(r"\$|[\"'`(){}|&;<>]")


def kubernetes() -> Iterator[tuple[str, list[str]]]:
    for path in sorted((PACKAGING / "kubernetes").rglob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            template = manifest.get("spec", {}).get("template", {}) if manifest["kind"] == "Deployment" else {}
            for container in template.get("spec", {}).get("containers", ()):
                if container["image"] == "beatd":
                    assert "command" not in container, "the image's ENTRYPOINT is tini and beatd"
                    yield path.name, container["args"]
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    words = container.get(probe, {}).get("exec", {}).get("command", [])
                    if words[:1] == ["beatd"]:
                        yield f"{path.name} {probe}", words[1:]


def compose() -> Iterator[tuple[str, list[str]]]:
    services = yaml.safe_load((PACKAGING / "docker" / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        if service["image"] == "beatd":
            yield f"compose {name}", service["command"]
            health = service.get("healthcheck", {}).get("test", [])
            if health[1:2] == ["beatd"]:
                yield f"compose {name} healthcheck", health[2:]


def image() -> Iterator[tuple[str, list[str]]]:
    final = read(PACKAGING / "docker" / "Dockerfile")[-1]
    assert last(final, "ENTRYPOINT").words[-1] == "beatd"
    yield "image", last(final, "CMD").words
    yield "image healthcheck", json.loads(last(final, "HEALTHCHECK").rest.partition("CMD ")[2])[1:]


def units() -> Iterator[tuple[str, list[str]]]:
    for path in sorted((PACKAGING / "systemd").glob("*.service")):
        for line in re.findall(r"^Exec\w+=(.*)$", path.read_text(), re.MULTILINE):
            if (words := shlex.split(line))[0].endswith("/beatd"):
                yield path.name, words[1:]


def documents() -> Iterator[tuple[str, list[str]]]:
    """Consoles of the pages about deployment, comments of manifests, hooks."""
    for path in (ROOT / "docs" / "deployment.md", ROOT / "docs" / "upgrading.md", ROOT / "README.md"):
        for line in re.findall(
            r"^(?:[$#] |    )(?:docker run .* beatd |OTEL\S+ )?beatd (.*)$", path.read_text(), re.MULTILINE
        ):
            for part in line.split(" && "):
                words = part.split("    ")[0].partition("  #")[0].removeprefix("beatd ").strip()
                if not SHELL_WORD.search(words):
                    yield f"{path.name}: {words}", words.split()
    for path in (ROOT / "action.yml", ROOT / ".pre-commit-hooks.yaml"):
        for line in re.findall(r"\bbeatd (check|diff) ([^;|&\n]*)", path.read_text()):
            words = [word.strip("\"'") for word in re.split(r"\s\d?>", line[1])[0].split() if "@" not in word]
            if any(word.startswith("$") for word in words):
                placed = [re.sub(r"^\$.*", "HEAD" if "BASE" in word else "beat.toml", word) for word in words]
                yield f"{path.name}: {line[0]}", [line[0], *placed]


ALL = [*kubernetes(), *compose(), *image(), *units(), *documents()]


@pytest.mark.parametrize(("place", "words"), ALL, ids=[place for place, _ in ALL])
def test_it_is_accepted(place: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = ["run", *words] if words[0].startswith("-") else words
    command = main.get_command(click.Context(main), name)
    assert command is not None, f"{place}: there is no command {name}"
    command.make_context(name, list(rest), resilient_parsing=False)


def test_all_kinds_are_found() -> None:
    places = " ".join(place for place, _ in ALL)
    for kind in (
        "daemon.yaml",
        "worker.yaml",
        "web.yaml",
        "compose daemon",
        "image healthcheck",
        "beatd-worker.service",
    ):
        assert kind in places
    assert "action.yml: diff" in places
    assert ".pre-commit-hooks.yaml: diff" in places
    assert sum(place.startswith("deployment.md") for place, _ in ALL) >= 2
