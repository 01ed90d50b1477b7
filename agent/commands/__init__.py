"""The commands of `lineside`, one file each; imported only when called."""
