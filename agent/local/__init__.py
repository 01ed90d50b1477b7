"""The agent's own address: for the person beside the machine, HTTP triggers and metrics."""
