"""Who did what and when, for ever."""
