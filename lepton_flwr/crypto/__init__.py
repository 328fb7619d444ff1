"""Cryptography: cipher streams, digests, identities and certificates."""
