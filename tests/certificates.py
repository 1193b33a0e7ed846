"""Certificates for servers behind TLS, and the settings of a server that has them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def sign(folder: Path) -> None:
    """Make ``ca.pem`` and ``server.pem``, signed by it for 127.0.0.1; ``other.pem`` has signed nothing."""
    for name in ("ca", "other"):
        subject = ("-subj", f"/CN=beatd test {name}", "-addext", "basicConstraints=critical,CA:TRUE")
        key = ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key")
        _openssl(folder, "req", "-x509", *key, "-out", f"{name}.pem", "-days", "2", *subject)
    request = ("-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "csr", "-subj", "/CN=redis")
    _openssl(folder, "req", *request)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    _openssl(folder, "x509", "-req", "-in", "csr", "-out", "server.pem", *signed)


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=30)


def tls_settings(folder: Path, port: int) -> dict[str, str]:
    """Return the settings of a server that speaks TLS on a port, and to its peers."""
    files = {"cert": folder / "server.pem", "key": folder / "server.key", "ca-cert": folder / "ca.pem"}
    named = {f"tls-{name}-file": str(path) for name, path in files.items()}
    return {"tls-port": str(port), "tls-auth-clients": "no", "tls-replication": "yes", **named}


def tls_arguments(folder: Path, port: int) -> list[str]:
    """Return the same settings as arguments."""
    return [word for name, value in tls_settings(folder, port).items() for word in (f"--{name}", value)]
