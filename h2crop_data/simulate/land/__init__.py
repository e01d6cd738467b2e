"""The land of a synthetic region: roads, fields, crops of each year, and what farmers declare."""
