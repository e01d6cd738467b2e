"""The providers of scenes that h2crop knows: one module each, which states a `PROVIDER`."""
