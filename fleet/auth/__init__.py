"""Who may do what: tokens of people, credentials of devices, sessions of browsers."""
