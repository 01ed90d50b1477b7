"""The devices: enrolment, state, health and events."""
