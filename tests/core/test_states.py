"""The table of states: every cell is walked, Qt's orders are asserted one by one, and nobody else assigns a state."""

from __future__ import annotations

import ast
from itertools import pairwise, product
from pathlib import Path

import pytest

import trioqt
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import Connected, Disconnected, ErrorOccurred, HostFound, ReadChannelFinished
from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Input, StateMachine, Told

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

Heard = list[tuple[Told, SocketState]]
"""What was told, each with the state that the machine was in at that moment."""

# What must happen to a new socket to bring it into a state.
WAYS: dict[SocketState, list[Input]] = {
    UNCONNECTED: [],
    HOST_LOOKUP: [Input.LOOK_UP],
    CONNECTING: [Input.LOOK_UP, Input.FOUND],
    CONNECTED: [Input.LOOK_UP, Input.FOUND, Input.ESTABLISHED],
    BOUND: [Input.BIND],
    LISTENING: [Input.LISTEN],
    CLOSING: [Input.LOOK_UP, Input.FOUND, Input.ESTABLISHED, Input.DISCONNECT],
}

CELLS = list(product(SocketState, Input))
LEGAL = [cell for cell in CELLS if cell in TRANSITIONS]
ILLEGAL = [cell for cell in CELLS if cell not in TRANSITIONS]


def machine_in(state: SocketState) -> StateMachine:
    """A machine that has come into ``state`` as a socket does."""
    machine = StateMachine()
    feed(machine, *WAYS[state])
    assert machine.state is state
    return machine


def feed(machine: StateMachine, *inputs: Input) -> Heard:
    """What is heard while all this happens."""
    heard: Heard = []
    for happened in inputs:
        machine.feed(happened, lambda thing: heard.append((thing, machine.state)))
    return heard


def name_of(cell: tuple[SocketState, Input]) -> str:
    """The cell in the report of a failing test."""
    return f"{cell[0].name}-{cell[1].name}"


# ---- every cell ----------------------------------------------------------------------------


@pytest.mark.parametrize("cell", LEGAL, ids=name_of)
def test_a_legal_input_does_what_its_row_says(cell: tuple[SocketState, Input]) -> None:
    """The socket tells what the row lists, in its order, in the state that the row has reached by then."""
    state, happened = cell
    following, told = TRANSITIONS[cell]
    machine = machine_in(state)
    at_each: list[SocketState] = []
    for thing in told:
        state = thing if isinstance(thing, SocketState) else state
        at_each.append(state)

    assert machine.allows(happened)
    heard = feed(machine, happened)

    assert heard == list(zip(told, at_each, strict=True))
    assert machine.state is following


@pytest.mark.parametrize("cell", ILLEGAL, ids=name_of)
def test_an_input_without_a_row_is_refused_and_changes_nothing(cell: tuple[SocketState, Input]) -> None:
    """The error says what was attempted in which state, nothing is told, and the socket goes on as if unasked."""
    state, happened = cell
    machine = machine_in(state)
    heard: Heard = []

    assert not machine.allows(happened)
    with pytest.raises(SocketError) as caught:
        machine.feed(happened, lambda thing: heard.append((thing, machine.state)))

    assert caught.value.kind is ErrorKind.OPERATION
    assert state.name.lower().replace("_", " ") in caught.value.message
    assert happened.value in caught.value.message
    assert heard == []
    assert machine.state is state
    assert feed(machine, Input.ABORT) == feed(machine_in(state), Input.ABORT)


def test_these_inputs_are_legal_in_these_states() -> None:
    """The walk takes from the table what is legal; here it is said a second time, so a row cannot slip in or out."""
    legal = {happened: {state for state in SocketState if (state, happened) in TRANSITIONS} for happened in Input}

    assert legal == {
        Input.LOOK_UP: {UNCONNECTED, BOUND, HOST_LOOKUP, CONNECTING, CONNECTED, CLOSING},
        Input.FOUND: {HOST_LOOKUP},
        Input.LEFT_TO_PROXY: {HOST_LOOKUP},
        Input.NO_PROXY: {UNCONNECTED, BOUND},
        Input.ATTEMPT_FAILED: {HOST_LOOKUP, CONNECTING},
        Input.ATTEMPT_DROPPED: {HOST_LOOKUP, CONNECTING},
        Input.QUEUE_DROPPED: {HOST_LOOKUP, CONNECTING},
        Input.ESTABLISHED: {CONNECTING},
        Input.ADOPTED: {UNCONNECTED, BOUND, CONNECTED},
        Input.BIND: {UNCONNECTED},
        Input.BIND_FAILED: {UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, CLOSING},
        Input.DATAGRAM_FAILED: {UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND},
        Input.LISTEN: {UNCONNECTED},
        Input.PEER_FINISHED: {CONNECTED},
        Input.PEER_CLOSED: {CONNECTED},
        Input.READ_FAILED: {CONNECTED},
        Input.WRITE_FAILED: {CONNECTED, CLOSING},
        Input.DISCONNECT: {UNCONNECTED, HOST_LOOKUP, CONNECTING, BOUND, CONNECTED, CLOSING},
        Input.FLUSHED: {CLOSING},
        Input.ABORT: set(SocketState),
    }


def test_the_walk_covers_the_whole_table() -> None:
    """No row stands for a state or an input that the walk above does not reach."""
    assert set(LEGAL) == set(TRANSITIONS)
    assert len(CELLS) == 7 * 20
    assert set(WAYS) == set(SocketState)


# ---- the table agrees with itself ----------------------------------------------------------


@pytest.mark.parametrize("cell", LEGAL, ids=name_of)
def test_the_last_state_that_is_told_is_the_one_the_socket_ends_in(cell: tuple[SocketState, Input]) -> None:
    """A listener never sees a socket somewhere else than where it is; only a server's LISTENING is not told."""
    following, told = TRANSITIONS[cell]
    states = [cell[0], *(thing for thing in told if isinstance(thing, SocketState))]
    untold = {(UNCONNECTED, Input.LISTEN), (LISTENING, Input.ABORT)}

    assert states[-1] is (cell[0] if cell in untold else following)
    assert all(earlier is not later for earlier, later in pairwise(states))


def test_every_state_can_be_reached_and_left() -> None:
    """From a new socket there is a way to each state, and from each state one ABORT leads back."""
    reached, new = {UNCONNECTED}, {UNCONNECTED}
    while new:
        new = {following for (state, _), (following, _) in TRANSITIONS.items() if state in new} - reached
        reached |= new

    assert reached == set(SocketState)
    assert {state: TRANSITIONS[state, Input.ABORT][0] for state in SocketState} == dict.fromkeys(
        SocketState, UNCONNECTED
    )


def test_every_input_is_legal_somewhere() -> None:
    """An input without a row would be one that nobody can use."""
    assert {happened for _, happened in TRANSITIONS} == set(Input)


def test_errors_are_told_once_by_just_these_inputs() -> None:
    """A failure is told exactly once; so are a refused connect or bind, lost promises, datagrams, and a useless proxy.

    Whatever else a program does to its own socket is none.
    """
    failing = {Input.ATTEMPT_FAILED, Input.BIND_FAILED, Input.PEER_CLOSED, Input.READ_FAILED, Input.WRITE_FAILED}
    failing |= {Input.QUEUE_DROPPED, Input.DATAGRAM_FAILED, Input.NO_PROXY}
    busy = {(state, Input.LOOK_UP) for state in (HOST_LOOKUP, CONNECTING, CONNECTED, CLOSING)}

    counts = {cell: told.count(ErrorOccurred) for cell, (_, told) in TRANSITIONS.items()}

    assert counts == {cell: int(cell[1] in failing or cell in busy) for cell in TRANSITIONS}


def test_disconnected_is_told_exactly_when_a_connection_ends() -> None:
    """Leaving CONNECTED or CLOSING for UNCONNECTED tells it last, right behind the end of reading."""
    for (state, happened), (following, told) in TRANSITIONS.items():
        if state in (CONNECTED, CLOSING) and following is UNCONNECTED:
            assert told[-3:] == (UNCONNECTED, ReadChannelFinished, Disconnected), (state, happened)
        else:
            assert Disconnected not in told, (state, happened)


# ---- Qt's orders, as read off the real Qt --------------------------------------------------


def test_connecting_by_a_proxy_to_a_name() -> None:
    """Qt: S(HostLookup) S(Connecting) S(Connected) connected; nothing was found here."""
    machine = StateMachine()

    heard = feed(machine, Input.LOOK_UP, Input.LEFT_TO_PROXY, Input.ESTABLISHED)

    assert heard == [
        (HOST_LOOKUP, HOST_LOOKUP),
        (CONNECTING, CONNECTING),
        (CONNECTED, CONNECTED),
        (Connected, CONNECTED),
    ]


def test_a_proxy_of_no_use_is_told_and_nothing_begins() -> None:
    """Qt: E(UnsupportedSocketOperation) in the call, in whatever state it was."""
    assert feed(machine_in(BOUND), Input.NO_PROXY) == [(ErrorOccurred, BOUND)]
    assert feed(StateMachine(), Input.NO_PROXY) == [(ErrorOccurred, UNCONNECTED)]


def test_connecting_to_a_host() -> None:
    """Qt: S(HostLookup) S(Connecting) host_found S(Connected) connected, for a name and for an address."""
    machine = StateMachine()

    heard = feed(machine, Input.LOOK_UP, Input.FOUND, Input.ESTABLISHED)

    assert heard == [
        (HOST_LOOKUP, HOST_LOOKUP),
        (CONNECTING, CONNECTING),
        (HostFound, CONNECTING),
        (CONNECTED, CONNECTED),
        (Connected, CONNECTED),
    ]
    assert machine.state is CONNECTED


def test_a_refused_attempt_tells_the_state_before_the_error() -> None:
    """Qt: ... S(Unconnected) E(x), and no disconnected: there was no connection."""
    machine = machine_in(CONNECTING)

    assert feed(machine, Input.ATTEMPT_FAILED) == [(UNCONNECTED, UNCONNECTED), (ErrorOccurred, UNCONNECTED)]


def test_a_name_that_is_not_found_never_was_connecting() -> None:
    """Qt: S(HostLookup) S(Unconnected) E(HostNotFound)."""
    machine = StateMachine()

    assert feed(machine, Input.LOOK_UP, Input.ATTEMPT_FAILED) == [
        (HOST_LOOKUP, HOST_LOOKUP),
        (UNCONNECTED, UNCONNECTED),
        (ErrorOccurred, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [HOST_LOOKUP, CONNECTING])
def test_an_attempt_that_is_given_up_tells_the_state_alone(state: SocketState) -> None:
    """Qt, where wait_for_connected runs out: S(Unconnected) only, no E."""
    assert feed(machine_in(state), Input.ATTEMPT_DROPPED) == [(UNCONNECTED, UNCONNECTED)]


def test_a_peer_that_finishes_ends_a_socket_that_is_not_half_open() -> None:
    """Qt: E(RemoteHostClosed) [still Connected] S(Closing) S(Unconnected) RCF disconnected; the queue is sent."""
    machine = machine_in(CONNECTED)

    closed = feed(machine, Input.PEER_CLOSED)
    between = machine.state
    flushed = feed(machine, Input.FLUSHED)

    assert closed == [(ErrorOccurred, CONNECTED), (CLOSING, CLOSING)]
    assert between is CLOSING
    assert flushed == [
        (UNCONNECTED, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
        (Disconnected, UNCONNECTED),
    ]


def test_a_peer_that_finishes_leaves_a_half_open_socket_connected() -> None:
    """No error and no new state: only the end of reading is told."""
    machine = machine_in(CONNECTED)

    assert feed(machine, Input.PEER_FINISHED) == [(ReadChannelFinished, CONNECTED)]
    assert machine.state is CONNECTED


def test_a_loss_found_by_reading_tells_the_error_first_and_passes_closing() -> None:
    """Qt: E(RemoteHostClosed) [still Connected] S(Closing) S(Unconnected) RCF disconnected."""
    assert feed(machine_in(CONNECTED), Input.READ_FAILED) == [
        (ErrorOccurred, CONNECTED),
        (CLOSING, CLOSING),
        (UNCONNECTED, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
        (Disconnected, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [CONNECTED, CLOSING])
def test_a_loss_found_by_writing_tells_the_error_first_and_has_no_closing(state: SocketState) -> None:
    """Qt: E(RemoteHostClosed) S(Unconnected) RCF disconnected."""
    assert feed(machine_in(state), Input.WRITE_FAILED) == [
        (ErrorOccurred, state),
        (UNCONNECTED, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
        (Disconnected, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [CONNECTED, BOUND])
def test_disconnecting_passes_closing(state: SocketState) -> None:
    """Qt: S(Closing) S(Unconnected) RCF disconnected, all inside the call if nothing is to be sent; bound ones too."""
    assert feed(machine_in(state), Input.DISCONNECT, Input.FLUSHED) == [
        (CLOSING, CLOSING),
        (UNCONNECTED, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
        (Disconnected, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [UNCONNECTED, CLOSING])
def test_disconnecting_what_is_ending_or_has_ended_tells_nothing(state: SocketState) -> None:
    """Qt: a second disconnect_from_host does nothing, nor does one without a connection."""
    machine = machine_in(state)

    assert feed(machine, Input.DISCONNECT) == []
    assert machine.state is state


@pytest.mark.parametrize("state", [HOST_LOOKUP, CONNECTING])
def test_disconnecting_while_connecting_drops_the_attempt(state: SocketState) -> None:
    """Ours, as an abort there; Qt would connect first and then disconnect."""
    assert feed(machine_in(state), Input.DISCONNECT) == [
        (UNCONNECTED, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [CONNECTED, CLOSING])
def test_aborting_a_connection_has_no_closing_in_between(state: SocketState) -> None:
    """Qt: S(Unconnected) RCF disconnected."""
    assert feed(machine_in(state), Input.ABORT) == [
        (UNCONNECTED, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
        (Disconnected, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [HOST_LOOKUP, CONNECTING, BOUND])
def test_aborting_before_there_is_a_connection_tells_no_disconnected(state: SocketState) -> None:
    """Qt: S(Unconnected) RCF."""
    assert feed(machine_in(state), Input.ABORT) == [
        (UNCONNECTED, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [HOST_LOOKUP, CONNECTING])
def test_an_attempt_that_is_dropped_with_its_queue_tells_the_state_before_the_error(state: SocketState) -> None:
    """Ours, in Qt's order for what fails while connecting; before the last thing told, so nobody misses it."""
    assert feed(machine_in(state), Input.QUEUE_DROPPED) == [
        (UNCONNECTED, UNCONNECTED),
        (ErrorOccurred, UNCONNECTED),
        (ReadChannelFinished, UNCONNECTED),
    ]


@pytest.mark.parametrize("state", [UNCONNECTED, LISTENING])
def test_aborting_what_has_no_peer_tells_nothing(state: SocketState) -> None:
    """A fresh socket has nothing to end, and a server's states are told by nobody."""
    machine = machine_in(state)

    assert feed(machine, Input.ABORT) == []
    assert machine.state is UNCONNECTED


def test_binding_tells_the_state() -> None:
    """Qt: S(Bound)."""
    assert feed(StateMachine(), Input.BIND) == [(BOUND, BOUND)]


@pytest.mark.parametrize("state", [UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, CLOSING])
def test_a_bind_that_fails_tells_the_error_and_no_state(state: SocketState) -> None:
    """Qt: E(x) without a state change, at the wrong moment too; what goes on there is not disturbed."""
    machine = machine_in(state)

    assert feed(machine, Input.BIND_FAILED) == [(ErrorOccurred, state)]
    assert machine.state is state
    assert feed(machine, Input.ABORT) == feed(machine_in(state), Input.ABORT)


@pytest.mark.parametrize("state", [UNCONNECTED, BOUND])
def test_adopting_a_connection_tells_the_state_and_no_connected(state: SocketState) -> None:
    """Qt: S(Connected), no connected; nobody connected here."""
    assert feed(machine_in(state), Input.ADOPTED) == [(CONNECTED, CONNECTED)]


def test_adopting_a_second_connection_tells_nothing() -> None:
    """Qt: it takes the place of the first without a word."""
    machine = machine_in(CONNECTED)

    assert feed(machine, Input.ADOPTED) == []
    assert machine.state is CONNECTED


@pytest.mark.parametrize("state", [HOST_LOOKUP, CONNECTING, CONNECTED, CLOSING])
def test_connecting_while_busy_tells_an_error_and_disturbs_nothing(state: SocketState) -> None:
    """Qt: E(OperationError), nothing else; the connection or attempt there is goes on."""
    machine = machine_in(state)

    assert feed(machine, Input.LOOK_UP) == [(ErrorOccurred, state)]
    assert machine.state is state
    assert feed(machine, Input.ABORT) == feed(machine_in(state), Input.ABORT)


# ---- the end of reading is told once -------------------------------------------------------

ENDS = {
    "flushed": ([Input.DISCONNECT, Input.FLUSHED], [CLOSING, UNCONNECTED, Disconnected]),
    "aborted": ([Input.ABORT], [UNCONNECTED, Disconnected]),
    "lost": ([Input.READ_FAILED], [ErrorOccurred, CLOSING, UNCONNECTED, Disconnected]),
    "lost in a write": ([Input.WRITE_FAILED], [ErrorOccurred, UNCONNECTED, Disconnected]),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_reading_is_told_once_in_a_connection(end: str) -> None:
    """A peer that finished has said so; the end of the connection, whatever it is, does not say it again."""
    inputs, told = ENDS[end]
    machine = machine_in(CONNECTED)

    heard = feed(machine, Input.PEER_FINISHED, *inputs)

    assert [thing for thing, _ in heard] == [ReadChannelFinished, *told]


@pytest.mark.parametrize(
    "again",
    [
        [Input.LOOK_UP, Input.FOUND, Input.ESTABLISHED],
        [Input.BIND, Input.LOOK_UP, Input.FOUND, Input.ESTABLISHED],
        [Input.ADOPTED],
        [Input.BIND, Input.ADOPTED],
    ],
    ids=["connected", "bound and connected", "adopted", "bound and adopted"],
)
def test_the_end_of_reading_is_told_again_in_the_next_connection(again: list[Input]) -> None:
    """A socket that connects anew, or is given another connection, has a new end to tell."""
    machine = machine_in(CONNECTED)
    feed(machine, Input.PEER_FINISHED, Input.ABORT, *again)

    assert feed(machine, Input.PEER_FINISHED) == [(ReadChannelFinished, CONNECTED)]
    assert feed(machine, Input.ABORT) == [(UNCONNECTED, UNCONNECTED), (Disconnected, UNCONNECTED)]


def test_a_connection_that_takes_the_place_of_a_finished_one_has_an_end_of_its_own() -> None:
    """The bug was: the second connection came without a word, so its end was taken for the one told already."""
    machine = machine_in(CONNECTED)
    feed(machine, Input.PEER_FINISHED, Input.ADOPTED)

    assert feed(machine, Input.PEER_FINISHED) == [(ReadChannelFinished, CONNECTED)]


def test_a_refused_second_connect_does_not_make_the_connection_new() -> None:
    """The finished peer stays finished: its end is not told a second time."""
    machine = machine_in(CONNECTED)
    feed(machine, Input.PEER_FINISHED, Input.LOOK_UP)

    assert feed(machine, Input.PEER_FINISHED, Input.ABORT) == [
        (UNCONNECTED, UNCONNECTED),
        (Disconnected, UNCONNECTED),
    ]


def test_an_attempt_after_one_that_was_dropped_tells_its_own_end() -> None:
    """Each attempt that is aborted ends reading, however many went before."""
    machine = StateMachine()

    heard = [feed(machine, Input.LOOK_UP, Input.ABORT) for _ in range(2)]

    once = [(HOST_LOOKUP, HOST_LOOKUP), (UNCONNECTED, UNCONNECTED), (ReadChannelFinished, UNCONNECTED)]
    assert heard == [once, once]


# ---- nobody else assigns a state -----------------------------------------------------------


def state_assignments(source: str) -> list[int]:
    """The lines that may set a machine's state, or exchange a machine for another one after ``__init__``."""
    lines: list[int] = []
    tree = ast.parse(source)
    made = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if node.attr == "state" or (node.attr == "_machine" and id(node) not in made):
                lines.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            function_name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            if function_name in ("setattr", "__setattr__", "delattr", "__delattr__") and "state" in names:
                lines.append(node.lineno)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            lines.extend([node.lineno] if ast.unparse(node.value).endswith("TRANSITIONS") else [])
    return sorted(lines)


def test_nothing_but_the_table_assigns_a_state() -> None:
    """Read from the source of all of trioqt: a state changes in ``StateMachine`` or not at all.

    The simulated TCP has states of its own, RFC 9293's, and a table of its own, which two methods beside the first
    value apply.
    """
    root = Path(trioqt.__file__).parent
    sources = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    simulated = ast.parse(sources.pop("testing/network/tcp.py"))

    found = {name: lines for name, source in sources.items() if (lines := state_assignments(source))}

    assert list(found) == ["core/states.py"]
    methods = [node for node in ast.walk(simulated) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in methods if state_assignments(ast.unparse(node))] == ["__init__", "_feed", "forget"]
    assert "sockets/tcp_socket.py" in sources


@pytest.mark.parametrize(
    "source",
    [
        "sock._machine.state = CLOSING",
        "self._machine.state: SocketState = CLOSING",
        "(a, self._machine.state) = b",
        "for machine.state in states: pass",
        "with scope as machine.state: pass",
        "del machine.state",
        "setattr(machine, 'state', CLOSING)",
        "object.__setattr__(machine, 'state', CLOSING)",
        "def reset(self):\n    self._machine = StateMachine()",
        "TRANSITIONS[CONNECTED, Input.ABORT] = (CLOSING, ())",
    ],
)
def test_the_scan_finds_whoever_assigns_one(source: str) -> None:
    """The test before this one can fail."""
    assert state_assignments(source) == [source.count("\n") + 1]


def test_the_scan_lets_pass_who_makes_a_machine_or_asks_it() -> None:
    """The test before the last finds nothing where there is nothing."""
    source = "def __init__(self):\n    self._machine = StateMachine()\n    self._first = self._machine.state"

    assert state_assignments(source) == []
