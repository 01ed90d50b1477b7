"""Bytes under their SHA-256."""
