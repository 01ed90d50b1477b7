"""The simulated line: a belt, its parts with known truth, its controller and its camera."""
