"""Tools that test programs on trio; useful without any other part of trioqt.

`cancel_everywhere` runs a program once for each place at which it can be cancelled, and reports what was lost or
leaked; `Probe` is what the program is given.
"""

from trioqt.testing.cancel_everywhere import Probe, cancel_everywhere
from trioqt.testing.virtual_network import VirtualNetwork

# The function now hides the module of the same name as an attribute of this package.  `from
# trioqt.testing.cancel_everywhere import Report` still finds the module; `import trioqt.testing.cancel_everywhere as m`
# does not.
__all__ = ["Probe", "VirtualNetwork", "cancel_everywhere"]
