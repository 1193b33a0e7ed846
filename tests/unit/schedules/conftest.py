"""How hard the properties are tried: quick by default, ``HYPOTHESIS_PROFILE=thorough`` for an hour of doubt."""

import os

from hypothesis import HealthCheck, settings

_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("quick", max_examples=120, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("thorough", max_examples=5000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
