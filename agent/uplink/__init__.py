"""From the device to the fleet: the outbox on disk, the MQTT link, pictures, the HTTP client."""
