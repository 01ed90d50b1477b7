"""Decoders: one file for each output layout, chosen by name in the manifest; numpy only."""
