"""Settings for all tests."""

from hypothesis import HealthCheck, settings

# Nothing here may depend on how fast the machine is.
settings.register_profile("hilcl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hilcl")
