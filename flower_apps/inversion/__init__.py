"""A curious server: what it watches, what it makes of the updates it kept, what that leaves, and how it is shown."""
