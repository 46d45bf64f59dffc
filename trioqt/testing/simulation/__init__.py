"""One run in virtual time: a clock that jumps, a schedule that a seed pins, and guards against standing still.

It knows trio's run loop, its tasks and where they stand, and how the same run is made again elsewhere.
It must not know how the network below does its work, and nothing of cancellation being tried out.
"""
