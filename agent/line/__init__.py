"""Triggers in, verdicts out."""
