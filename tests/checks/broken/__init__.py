"""Models that are wrong on purpose, each in one way; the checks must say in which. Used by test_checks.py."""
