"""Parts that a candidate judged beside the active version: what devices send, and how the two compare."""
