"""The datasheet of a release: its content, origin, method and known limits."""
