"""What validation knows of the sources that come with h2crop, each in a module of its own."""
