"""What a node says of itself: events, metrics, messages."""
