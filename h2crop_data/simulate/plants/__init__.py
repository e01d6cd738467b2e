"""What grows and lies on the ground: shares of endmembers day by day, and their spectra."""
