"""What crosses the wire: actions, records to typed payloads, arrays to flat vectors, and the shared seeds."""
