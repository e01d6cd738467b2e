"""EnMAP: product metadata, bands, quality flags, resampling to the lattice. Pure functions of arrays."""
