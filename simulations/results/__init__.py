"""The scenarios measured, central and federated, and the pages that say so."""
