"""Whether a store is whole and says the truth: `h2crop validate`."""
