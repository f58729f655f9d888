"""Seeded crash tests: the whole stack, real servers, something killed at a chosen moment, and the log as the judge."""
