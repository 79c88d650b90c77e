"""The one request language: what is asked, what comes back, and who carries it to an engine."""
