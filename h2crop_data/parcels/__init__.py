"""Declared parcels: reading them, their classes in the four tiers, their pixels."""
