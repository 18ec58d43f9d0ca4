"""What holds for every test."""

from hypothesis import settings

# How long an example takes depends on what else the machine does; pytest's own timeout ends one that hangs.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
