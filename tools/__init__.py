"""What a developer runs from a checkout; nothing here is part of the package."""
