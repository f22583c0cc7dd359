"""An app as Flower's own quickstart: a server app, a client app, and what they learn."""
