"""The store: its format, the one place that writes it, and its readers."""
