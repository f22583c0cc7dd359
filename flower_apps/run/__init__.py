"""The run, built once of its settings and handed down."""
