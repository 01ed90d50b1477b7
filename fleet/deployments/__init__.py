"""What each device should run, what it says about it, and what ran when."""
