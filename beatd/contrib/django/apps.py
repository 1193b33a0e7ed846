"""The Django app of beatd: system checks, and entries in the admin."""

from __future__ import annotations

from django.apps import AppConfig


class BeatdConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """Configuration of ``"beatd.contrib.django"`` in ``INSTALLED_APPS``."""

    name = "beatd.contrib.django"
    label = "beatd"
    verbose_name = "beatd"

    def ready(self) -> None:
        """Register the system checks."""
        from beatd.contrib.django import checks  # noqa: PLC0415 - it needs the settings

        checks.register_all()
