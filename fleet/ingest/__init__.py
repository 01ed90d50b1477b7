"""Takes what devices say from the broker into the database, and answers when it is safely there."""
