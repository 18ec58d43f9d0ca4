"""Open-loop load: requests leave at fixed times, whether or not earlier ones were answered."""
