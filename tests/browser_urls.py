"""Paths as a browser asks for them."""

from __future__ import annotations


def browser_path(link: str) -> str:
    """The path of a link, without its parts "." and "..", also as %2e; see the URL standard of WHATWG."""
    path = link.partition("#")[0].partition("?")[0].replace("\\", "/")
    kept: list[str] = []
    parts = path.split("/")[1:]
    for number, part in enumerate(parts):
        plain = part.lower().replace("%2e", ".")
        if plain == "..":
            del kept[-1:]
        if plain not in (".", ".."):
            kept.append(part)
        elif number == len(parts) - 1:
            kept.append("")
    return "/" + "/".join(kept)
