"""Chooses, configures and supervises the MQTT broker."""
