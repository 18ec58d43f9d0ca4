"""A PKCS#11 library for tests: SoftHSM with the behaviour and the faults of other modules.

What it emulates comes from public documents and is *not verified on hardware*.
"""

from tests.shim.control import (
    FUNCTIONS,
    PERSONALITIES,
    Personality,
    ShimControl,
    build,
    environment,
)

__all__ = ["FUNCTIONS", "PERSONALITIES", "Personality", "ShimControl", "build", "environment"]
