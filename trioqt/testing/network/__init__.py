"""A network of memory: what a kernel and a wire do.

It knows hosts, links, sockets with the answers of Linux, and what can go wrong between them, all on trio's clock.
It must not know who runs on it, what kind of clock that is, or how a run is set up and judged.
"""
