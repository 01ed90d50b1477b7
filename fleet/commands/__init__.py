"""The commands of `lineside-fleet`, one file each, imported only when called."""
