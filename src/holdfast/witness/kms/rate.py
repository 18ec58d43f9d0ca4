"""A token bucket, with the clock as an argument."""

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Lets `rate` requests through per second, and as many at once after a second of rest."""

    rate: int
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: int, now: float) -> "TokenBucket":
        """A bucket that has rested. `now` is in seconds of a monotonic clock."""
        return cls(rate, float(rate), now)

    def take(self, now: float) -> bool:
        """Whether a request may pass now; if so, its token is gone."""
        self.tokens = min(self.rate, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
