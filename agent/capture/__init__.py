"""Frames: where they come from and how they are handed on."""
