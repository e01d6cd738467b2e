"""Declared parcels: what is read of the files, put into splits and drawn as labels."""
