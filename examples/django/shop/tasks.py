"""The tasks of the application."""

from django.contrib.auth import get_user_model

from beatd import shared_task


@shared_task
def count_users() -> str:
    """Name the model that would be counted: the example has no database on disk."""
    return f"counted {get_user_model()._meta.verbose_name_plural}"
