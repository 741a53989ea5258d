"""Sealing of values: envelopes, the keyring, and where keys come from."""
