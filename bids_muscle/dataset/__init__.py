"""BIDS in (discovery, contrasts) and BIDS out (names, sidecars, provenance)."""
