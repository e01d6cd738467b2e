"""Crop codes: what the codes of a country mean, and the classes of the four tiers they belong to."""
