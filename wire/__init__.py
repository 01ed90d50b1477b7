"""What the agent and the fleet must say, or compute, identically. Standard library and msgspec only."""
