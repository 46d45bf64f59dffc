"""Tools that test programs on trio; useful without any other part of trioqt.

`VirtualNetwork` is a network made of memory, on which every trio program runs unchanged; `simulate` runs one there in
virtual time, the same way each time.  Faults are values, and a `FaultPlan` says when each begins and ends.  `SignalSpy`
and `expect` watch what a socket tells.  `cancel_everywhere` runs a program once for each place at which it can be
cancelled, and reports what was lost or leaked; `interrupt_everywhere` does the same with a Ctrl-C at each line.
"""

from trioqt.testing.cancelling.cancel_everywhere import cancel_everywhere
from trioqt.testing.cancelling.interrupt_everywhere import interrupt_everywhere
from trioqt.testing.cancelling.walk import Probe
from trioqt.testing.network.fabric import Conditions
from trioqt.testing.network.fault_plan import FaultPlan, Planned
from trioqt.testing.network.faults import (
    Crash,
    Degraded,
    DescriptorsExhausted,
    Fault,
    Hold,
    Isolated,
    Latency,
    Loss,
    NameServerDown,
    Partition,
    Pause,
    ResetConnections,
    Skew,
)
from trioqt.testing.network.real_network import RealNetworkUsed, real_network_allowed
from trioqt.testing.network.trace import TraceEvent
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.scripted_proxy import ScriptedProxy
from trioqt.testing.signal_spy import SignalSpy, expect, like
from trioqt.testing.simulation.both_networks import both_networks
from trioqt.testing.simulation.guards import (
    BudgetExceeded,
    Deadlock,
    guards,
    real_time,
)
from trioqt.testing.simulation.replay import assert_replays
from trioqt.testing.simulation.simulate import simulate

__all__ = [
    # the network
    "VirtualNetwork",
    "Conditions",
    "TraceEvent",
    # what goes wrong on it
    "Fault",
    "Partition",
    "Isolated",
    "Hold",
    "Loss",
    "Latency",
    "Degraded",
    "ResetConnections",
    "Crash",
    "Pause",
    "DescriptorsExhausted",
    "NameServerDown",
    "Skew",
    "FaultPlan",
    "Planned",
    # runs
    "simulate",
    "assert_replays",
    "both_networks",
    "guards",
    "real_time",
    "real_network_allowed",
    "Deadlock",
    "BudgetExceeded",
    "RealNetworkUsed",
    # peers
    "ScriptedProxy",
    # events
    "SignalSpy",
    "expect",
    "like",
    # cancellation
    "cancel_everywhere",
    "interrupt_everywhere",
    "Probe",
]
