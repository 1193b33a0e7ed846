"""Entries as a model without a table: Django's permissions (view, change, add, delete) need one."""

from __future__ import annotations

from typing import Any

from django.db import models


class NoRows(models.Manager):  # type: ignore[misc]  # Django has no types
    """Manager that never asks the database: commands such as ``dumpdata`` go through all models."""

    def get_queryset(self) -> Any:
        """An empty query set."""
        return super().get_queryset().none()


class Entry(models.Model):  # type: ignore[misc]
    """An entry of the schedule. What is known of it is in the files, the app and the state store."""

    name = models.CharField(primary_key=True, max_length=500)

    objects = NoRows()

    class Meta:
        app_label = "beatd"
        managed = False
        base_manager_name = "objects"
        verbose_name = "entry"
        verbose_name_plural = "schedule"

    def __str__(self) -> str:
        return str(self.name)
