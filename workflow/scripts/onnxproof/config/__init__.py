"""The configuration: reading, checking and resolving it."""
