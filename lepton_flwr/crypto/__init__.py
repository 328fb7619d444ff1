"""Cryptography: cipher streams, digests, identities, certificates, encryption at rest."""
