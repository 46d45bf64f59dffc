"""A small BitTorrent peer: what one module knows, the next need not."""
