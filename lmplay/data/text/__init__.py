"""Rows of a source as documents, and documents as tokens."""
