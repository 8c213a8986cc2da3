"""Networks, model bundles, inference and post-processing."""
