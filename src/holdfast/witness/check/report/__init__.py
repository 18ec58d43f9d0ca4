"""A Report as text for a terminal, JSON, JUnit XML, and one self-contained HTML page."""
