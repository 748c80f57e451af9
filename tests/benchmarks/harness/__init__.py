"""The gateway's benchmark, in parts: an upstream, a load generator, targets, and what is measured of them."""
