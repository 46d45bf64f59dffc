"""The general rules: what the two APIs say differently, translated in both traces.

Each rule has a law or a row of the contract behind it, says what it does, and counts the entries it touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import attrs

from tests.conformance.entries import (
    NO_ERROR,
    Entries,
    count_of,
    end_of,
    fold,
    is_call,
    is_query,
    is_signal,
    objects,
    of,
    remove,
    result_of,
)
from tests.conformance.trace import Entry

__all__ = ["MARKS", "NOT_COMPARED", "RULES", "Rule"]


@attrs.frozen
class Rule:
    """One way in which the two APIs say the same thing differently."""

    name: str
    law: str
    """The law, or row of the table, of the contract that it follows from."""
    does: str
    apply: Callable[[Entries, Entries], int]
    """Translate Qt's entries, ours, or both, in place; how many of Qt's were touched."""


NOT_COMPARED = frozenset(
    [
        *("is_open", "open_mode", "is_readable", "is_writable", "error_string"),
        # What is checked is the context's, and ciphertext is nobody's business.
        *("peer_verify_mode", "peer_verify_depth", "peer_verify_name", "protocol"),
        *("encrypted_bytes_available", "encrypted_bytes_to_write"),
    ]
)
NOT_SIGNALLED = frozenset(
    [
        *("about_to_close", "pending_connection_available"),
        *("peer_verify_error", "encrypted_bytes_written", "alert_sent", "alert_received"),
        *("started_encryption_handshake", "handshake_interrupted_on_error", "new_session_ticket_received"),
    ]
)
# What later rules leave on an entry for one another; it is not compared.
MARKS = frozenset({"warned", "written", "stable", "odd", "same_step", "in_slot", "inside"})


def drop(qt: Entries, ours: Entries) -> int:
    def unwanted(entry: Entry) -> bool:
        return is_query(entry, *NOT_COMPARED) or is_signal(entry, *NOT_SIGNALLED)

    for entries in (qt, ours):
        for entry in entries:
            entry.pop("error_string", None)
            if isinstance(entry.get("info"), dict):
                entry["info"].pop("error_string", None)
    for obj in objects(qt):
        signals = [entry for entry in of(qt, obj) if is_signal(entry)]
        # Only a server that encrypts says these, and has accepted then, but has nothing to be taken yet.
        if any(is_signal(one, "started_encryption_handshake") or is_of_connection(one) for one in signals):
            for entry in signals:
                if is_signal(entry, "new_connection"):
                    entry["name"] = "started_encryption_handshake"  # it can be taken after the handshake
    for index, entry in enumerate(qt):
        if is_signal(entry, "pending_connection_available"):
            following = next((other for other in qt[index + 1 :] if other.get("obj") == entry["obj"]), None)
            if following is None or not is_signal(following, "new_connection"):
                entry["name"] = "new_connection"  # of add_pending_connection(): ours has one signal for both
    remove(ours, unwanted)
    return remove(qt, unwanted)


def is_of_connection(entry: Entry) -> bool:
    """An error that a server tells of one of its connections."""
    return is_signal(entry, "error_occurred") and len(entry["args"]) == 2


def refuse(qt: Entries, ours: Entries) -> int:
    touched = 0
    for entries in (qt, ours):
        for start in range(len(entries)):
            if not is_call(entries[start]) or "ret" in entries[start]:
                continue
            end = end_of(entries, start)
            inside = entries[start + 1 : end]
            warnings = [e["fn"] for e in inside if e["k"] == "warning" and innermost(entries, start, e)]
            if warnings:
                entries[start]["warned"] = True
                if entries[end].get("ret", ...) is None:
                    entries[end]["ret"] = "refused: TypeError" if "TypeError" in warnings else "refused"
        here = remove(entries, lambda entry: entry["k"] == "warning")
        touched += here if entries is qt else 0
    return touched


def innermost(entries: Entries, start: int, warning: Entry) -> bool:
    """Is the call at ``start`` the one that was running when this warning came?"""
    place = next(index for index, entry in enumerate(entries) if entry is warning)
    running = [at for at in range(place) if is_call(entries[at]) and end_of(entries, at) > place]
    return bool(running) and running[-1] == start


ENCRYPTING = ("connect_to_host_encrypted", "start_client_encryption", "start_server_encryption")
ENDING = ("disconnect_from_host", "close", "abort")
BEGINNING = ("connect_to_host", "connect_to_host_encrypted", "set_socket_descriptor", "bind")


def await_(qt: Entries, ours: Entries) -> int:
    """Where the call returned says nothing; unless it was refused, or an end of ours returned before there was one."""
    touched = 0
    early = [ours[start] for start in returned_early(qt, ours)]
    remove(ours, lambda entry: entry["k"] == ACCOUNTED_FOR)
    for entries in (qt, ours):
        here = 0
        for start in range(len(entries)):
            if is_call(entries[start], "connect_to_host", *ENCRYPTING, *ENDING):
                result = result_of(entries, start)
                if any(entries[start] is call for call in early):
                    result["ret"] = "returned before the end"
                if result["k"] == "ret" and "raised" not in result:
                    result["k"] = "returned"
                    entries[start]["ret"] = result.get("ret")
                    here += 1
        entries[:] = [entry for entry in entries if entry["k"] != "returned"]
        touched += here if entries is qt else 0
    return touched


def returned_early(qt: Entries, ours: Entries) -> Iterator[int]:
    """Where ours returned and was not over; unless the harness let it go on in a task, because bytes were queued, and
    Qt's was not over either."""
    for obj in objects(ours):
        for name in ENDING:
            theirs = [at for at, entry in enumerate(qt) if entry.get("obj") == obj and is_call(entry, name)]
            mine = [at for at, entry in enumerate(ours) if entry.get("obj") == obj and is_call(entry, name)]
            for number, start in enumerate(mine):
                if not is_open_after(ours, start):
                    continue
                too = number < len(theirs) and is_open_after(qt, theirs[number])
                inside = of(ours[start : end_of(ours, start)], obj)
                task = next((entry for entry in inside if is_instead(entry, "it goes on in a task")), None)
                if too and task is not None:
                    task["k"] = ACCOUNTED_FOR
                else:
                    yield start


def is_open_after(entries: Entries, start: int) -> bool:
    """Was the object of this call still connected, or about to be, when the call had returned?"""
    obj, end = entries[start]["obj"], end_of(entries, start)
    for entry in of(entries[end + 1 :], obj):
        if is_signal(entry, "state_changed"):
            return entry["args"][0] in ("ClosingState", "UnconnectedState")
        if is_call(entry, *BEGINNING):
            break
    return state_at(entries, obj, end + 1) not in (None, "UnconnectedState")


def spell(qt: Entries, ours: Entries) -> int:
    touched = 0
    for entries in (qt, ours):
        for entry in entries:
            if is_call(entry, "skip") and entry.get("ret") == -1:
                entry["ret"] = 0
                touched += 1 if entries is qt else 0
            for key, value in entry.items():
                if key != "text" and "addr:::ffff:" in str(value):
                    entry[key] = json.loads(json.dumps(value).replace("addr:::ffff:", "addr:"))
                    touched += 1 if entries is qt else 0
    return touched + spell_datagrams(qt, ours)


def spell_datagrams(qt: Entries, ours: Entries) -> int:
    """What Qt does not know of a datagram, and what is the system's choice, is not compared."""
    touched = 0
    for obj in objects(qt):
        theirs, mine = ([datagrams_in(entry) for entry in of(entries, obj)] for entries in (qt, ours))
        pairs = zip([d for found in theirs for d in found], [d for found in mine for d in found], strict=False)
        for old, new in pairs:
            before = dict(old)
            old["destination"] = old["destination"].partition("%")[0]
            for key, unknown in (("hop_limit", -1), ("destination_port", -1), ("destination", "addr:null")):
                if old[key] == unknown and new["valid"]:
                    old[key] = new[key]
            if not old["interface_index"] and old["destination"] == new["destination"]:
                old["interface_index"] = new["interface_index"]
            if re.match(r"addr:(2[2-5]\d\.|ff)", old["destination"]):  # a group, or everybody
                old["sender"] = new["sender"] = "addr:own"
            touched += old != before
    return touched


def datagrams_in(entry: Entry) -> list[Entry]:
    """What was received."""
    given = entry.get("ret")
    return [given] if isinstance(given, dict) and "hop_limit" in given and entry.get("fn") != "write_datagram" else []


TIMED_OUT = "SocketTimeoutError"


def wait(qt: Entries, ours: Entries) -> int:
    """No time-outs of ours, so none is an error; and who waits for what holds already is told so."""
    touched = drop_attempts(qt, ours)
    for obj in objects(qt):
        error, pending, unread_news = NO_ERROR, 0, False
        for index, entry in enumerate(qt):
            if entry.get("obj") != obj:
                continue
            if is_signal(entry, "error_occurred"):
                if entry["args"] != [TIMED_OUT]:
                    error = entry["args"][0]
            elif is_call(entry, "connect_to_host"):
                error = NO_ERROR
            if entry.get("error") == TIMED_OUT:
                entry["error"] = error
                touched += 1
            if is_query(entry, "error", "server_error"):
                if entry["value"] in (TIMED_OUT, "TemporaryError"):
                    entry["value"] = error
                    touched += 1
                else:
                    error = entry["value"]
            if is_call(entry, "close") or (is_query(entry, "has_pending_connections") and not entry["value"]):
                pending = 0
            elif is_signal(entry, "new_connection"):
                pending += 1
            elif is_call(entry, "next_pending_connection") and entry.get("ret") is not None:
                pending -= 1
            elif is_signal(entry, "ready_read"):
                unread_news = True
            elif is_call(entry, *READS, "peek", "read_datagram", "receive_datagram"):
                unread_news = False
            if is_call(entry) and entry["fn"].startswith("wait_for_"):
                inside = [other for other in qt[index : end_of(qt, index)] if other.get("obj") == obj]
                timed_out = any(is_signal(other, "error_occurred") and other["args"] == [TIMED_OUT] for other in inside)
                holds = {
                    "wait_for_bytes_written": not timed_out
                    and "warned" not in entry
                    and state_at(qt, obj, index) != "UnconnectedState",
                    "wait_for_disconnected": not timed_out and "warned" in entry,
                    "wait_for_new_connection": pending > taken_unseen(qt, index),
                    "wait_for_ready_read": timed_out and unread_news and len(inside) == 2,
                }
                result = result_of(qt, index)
                if holds.get(entry["fn"]) and result.get("ret") in (False, [False, True]):
                    result["ret"] = True if result["ret"] is False else [True, False]
                    touched += 1
                if entry["fn"] == "wait_for_ready_read" and result.get("ret") is True:
                    unread_news = False
    told = {
        id(entry)
        for start in range(len(qt))
        if is_call(qt[start]) and qt[start]["fn"].startswith("wait_for_")
        for entry in qt[start : end_of(qt, start)]
        if is_signal(entry, "error_occurred") and entry["args"] == [TIMED_OUT]
    }
    return touched + remove(qt, lambda entry: id(entry) in told)


def taken_unseen(entries: Entries, index: int) -> int:
    """How many connections were taken before ``index`` by calls that are not recorded: they never began themselves."""
    given = {entry.get("ret") for entry in entries if is_call(entry, "next_pending_connection")}
    others = set(objects(entries[:index])) - given
    return sum(not any(is_call(entry, "listen", *BEGINNING) for entry in of(entries, other)) for other in others)


def drop_attempts(qt: Entries, ours: Entries) -> int:
    """A wait_for_connected() that runs out ends the attempt in Qt; so does the scope around our connect_to_host()."""
    touched = 0
    for obj in objects(ours):
        theirs = [at for at, e in enumerate(qt) if e.get("obj") == obj and is_call(e, "wait_for_connected")]
        mine = [at for at, e in enumerate(ours) if e.get("obj") == obj and is_call(e, "wait_for_connected")]
        for there, here in zip(theirs, mine, strict=False):
            ran_out = any(
                is_signal(entry, "state_changed") and entry["error"] == TIMED_OUT
                for entry in of(qt[there : end_of(qt, there)], obj)
            )
            for entry in of(ours[here : end_of(ours, here)], obj):
                if ran_out and is_instead(entry, "the attempt was cancelled"):
                    entry["k"] = ACCOUNTED_FOR
                    touched += 1
    remove(ours, lambda entry: entry["k"] == ACCOUNTED_FOR)
    return touched


ACCOUNTED_FOR = "accounted for"


def is_instead(entry: Entry, what: str) -> bool:
    """Did the harness do this in place of Qt's object?"""
    return bool(entry["k"] == "instead" and entry["what"] == what)


def replace_closed(qt: Entries, ours: Entries) -> int:
    """Our close() is for good, so that who goes on takes another socket; Qt's object is used again."""
    touched = 0
    for obj in objects(ours):
        closed, theirs = False, [entry for entry in of(qt, obj) if is_call(entry, "close")]
        before: Entry | None = None
        for entry in of(ours, obj):
            if is_call(entry, "close"):
                closed = bool(theirs)
                del theirs[:1]
            elif closed and before is not None and is_call(before, *BEGINNING) and is_instead(entry, "another socket"):
                entry["k"], closed = ACCOUNTED_FOR, False
                touched += 1
            before = entry
    remove(ours, lambda entry: entry["k"] == ACCOUNTED_FOR)
    return touched


def go_on(qt: Entries, ours: Entries) -> int:
    """Move what happened to an object in one of its waits in front of that."""
    touched = 0
    for entries in (qt, ours):
        for start in range(len(entries)):
            call = entries[start]
            if not is_call(call) or not call["fn"].startswith("wait_for_"):
                continue
            end = end_of(entries, start)
            if end == start:
                continue
            inside = [entry for entry in entries[start + 1 : end] if entry.get("obj") == call["obj"]]
            others = [entry for entry in entries[start + 1 : end] if entry.get("obj") != call["obj"]]
            entries[start:end] = [*inside, call, *others]
            touched += len(inside) if entries is qt else 0
        fold(entries)
    return touched


def act_later(qt: Entries, ours: Entries) -> int:
    """Move what a slot of Qt did in the midst of a step, and had no effect on it, to where ours could: behind it."""
    touched = tell_inside(qt, ours)
    for obj in objects(ours):
        pairs: list[tuple[Entry, Entry]] = []
        for name in dict.fromkeys(entry["fn"] for entry in of(ours, obj) if is_call(entry)):
            theirs = (entry for entry in of(qt, obj) if is_call(entry, name))
            mine = (entry for entry in of(ours, obj) if is_call(entry, name))
            pairs += zip(theirs, mine, strict=False)
        pairs.sort(key=lambda pair: place_of(qt, pair[0]), reverse=True)  # so that they stay in their order
        touched += sum(move_behind(qt, ours, there, here) for there, here in pairs)
    return touched


READS = ("read", "read_all", "read_line", "skip", "get_char")


def tell_inside(qt: Entries, ours: Entries) -> int:
    """Qt documents that ready_read is not emitted inside of its own slot, as when that waits; ours is told behind.

    It is left out if it says what it must: as the one before, with more bytes, and no more than are seen next.
    """
    touched = 0
    for obj in objects(ours):
        mine = list(of(ours, obj))
        more = count_signals(ours, obj) - count_signals(qt, obj)
        before: Entry | None = None  # nothing was read since
        for index, entry in enumerate(mine):
            if is_call(entry, *READS):
                before = None
            elif is_signal(entry, "ready_read"):
                if more > 0 and "inside" in entry and before is not None and is_news(before, entry, mine[index + 1 :]):
                    entry["k"] = ACCOUNTED_FOR
                    touched, more = touched + 1, more - 1
                before = entry
    remove(ours, lambda entry: entry["k"] == ACCOUNTED_FOR)
    return touched


def count_signals(entries: Entries, obj: str) -> int:
    return sum(is_signal(entry, "ready_read") for entry in of(entries, obj))


def is_news(before: Entry, entry: Entry, following: Entries) -> bool:
    """Are there just more bytes than before, as what follows says?"""
    seen = next((count for count in map(available, following) if count is not None), entry["avail"])
    same = all(before.get(key) == entry.get(key) for key in ("state", "error"))
    return same and before["avail"] < entry["avail"] <= seen


def move_behind(qt: Entries, ours: Entries, there: Entry, here: Entry) -> bool:
    """Move Qt's call behind the signals that ours comes behind, if they are of one step and Qt's are the same."""
    obj, place = there["obj"], place_of(qt, there)
    before = sum(is_signal(entry) for entry in of(qt[:place], obj))
    late = [entry for entry in of(ours[: place_of(ours, here)], obj) if is_signal(entry)][before:]
    following = [at for at in range(place + 1, len(qt)) if is_signal(qt[at]) and qt[at]["obj"] == obj][: len(late)]
    in_one_step = before and late and all(entry.get("same_step") for entry in late)
    if not in_one_step or not here.get("in_slot") or "ret" not in there:
        return False
    if [plain(qt[at]) for at in following] != [plain(entry) for entry in late]:
        return False
    qt.insert(following[-1], qt.pop(place))
    return True


def place_of(entries: Entries, wanted: Entry) -> int:
    return next(index for index, entry in enumerate(entries) if entry is wanted)


def plain(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key not in MARKS}


def state_at(entries: Entries, obj: str, index: int) -> str | None:
    """The state of ``obj`` as last seen before ``index``."""
    for entry in reversed(entries[:index]):
        if entry.get("obj") == obj:
            if is_query(entry, "state"):
                return str(entry["value"])
            if "state" in entry:
                return str(entry["state"])
    return None


DATAGRAM_VERBS = frozenset(
    [
        *("write_datagram", "read_datagram", "receive_datagram", "has_pending_datagrams", "pending_datagram_size"),
        *("join_multicast_group", "leave_multicast_group", "set_multicast_interface"),
    ]
)


def send_at_once(qt: Entries, ours: Entries) -> int:
    """What Qt's loop or flush() sends, our write() has sent: so a loss is found by it, and flush() has nothing to do.

    What is compared of ``bytes_written`` is in ``comparison.py``: never later than Qt's, and the same in all.  What is
    compared of ``bytes_to_write`` is its sum with what was written.
    """
    mark_odd(qt, ours)
    touched = find_losses_in_write(qt) + end_at_once(qt)
    if any(entry.get("fn") in DATAGRAM_VERBS for entry in qt):
        return touched  # a datagram is sent at once in Qt too
    unrecorded = {obj for obj in objects(qt) if total_written(qt, obj) > total_queued(qt, obj)}
    for entries in (qt, ours):
        for obj in objects(entries):
            written, queued = 0, 0
            for index, entry in enumerate(entries):
                if entry.get("obj") != obj:
                    continue
                entry["written"] = written
                if is_signal(entry, "bytes_written"):
                    # What was not recorded when it was written does not count.
                    written += entry["args"][0] if queued else 0
                    if obj in unrecorded:
                        written = min(written, queued)
                elif is_signal(entry, "state_changed") and entry["args"] == ["HostLookupState"]:
                    written = queued = 0
                elif is_call(entry, "write", "put_char"):
                    queued += count_of(result_of(entries, index))
                elif is_query(entry, "bytes_to_write"):
                    entry["value"] += entry["written"]
                    entry["fn"] = "bytes_to_write + bytes written"
                    touched += 1 if entries is qt else 0
                elif is_call(entry, "wait_for_bytes_written") and entries is ours and written < queued:
                    result = result_of(entries, index)
                    inside = entries[index : end_of(entries, index)]
                    more = sum(other["args"][0] for other in of(inside, obj) if is_signal(other, "bytes_written"))
                    if result.get("ret") is True and written + more < queued and obj not in unrecorded:
                        result["ret"] = "too early"
                elif is_call(entry, "flush"):
                    end = end_of(entries, index)
                    if any(is_signal(other, "bytes_written") for other in entries[index:end]):
                        entries[end]["ret"] = False
            entries.append({"k": "total", "obj": obj, "written": written})
        here = remove(entries, lambda entry: is_signal(entry, "bytes_written") and "odd" not in entry)
        touched += here if entries is qt else 0
    return touched


def mark_odd(qt: Entries, ours: Entries) -> None:
    """A bytes_written changes nothing else: beside ours, which may come earlier, stand the state and the error
    that were told last, and as many bytes available as beside one of Qt's, or as the entry before or after it says.  If
    not, it stays, and is a difference."""
    for obj in objects(ours):
        mine = list(of(ours, obj))
        theirs = {entry.get("avail") for entry in of(qt, obj) if is_signal(entry, "bytes_written")}
        state, error, avail = "ConnectedState", NO_ERROR, 0
        for index, entry in enumerate(mine):
            if is_signal(entry, "bytes_written") and "state" in entry:
                following = (available(other) for other in mine[index + 1 :])
                counts = theirs | {avail, next((count for count in following if count is not None), None)}
                if (entry["state"], entry["error"]) != (state, error) or entry["avail"] not in counts:
                    entry["odd"] = True
            elif is_query(entry, "state", "error"):
                state, error = (entry["value"], error) if entry["fn"] == "state" else (state, entry["value"])
            else:
                state, error = entry.get("state", state), entry.get("error", error)
            avail = avail if (count := available(entry)) is None else count


def available(entry: Entry) -> int | None:
    """How many bytes could be read then, if this entry says so: a bytes_written does not."""
    if is_query(entry, "bytes_available"):
        return int(entry["value"])
    return entry["avail"] if is_signal(entry) and entry["name"] != "bytes_written" and "avail" in entry else None


def total_written(entries: Entries, obj: str) -> int:
    return sum(entry["args"][0] for entry in of(entries, obj) if is_signal(entry, "bytes_written"))


def total_queued(entries: Entries, obj: str) -> int:
    writes = (at for at, e in enumerate(entries) if is_call(e, "write", "put_char") and e["obj"] == obj)
    return sum(count_of(result_of(entries, at)) for at in writes)


def find_losses_in_write(qt: Entries) -> int:
    """A flush() right after a write() that finds the connection lost: our write() finds it."""
    touched = 0
    for index in range(len(qt) - 1):
        write, flush = qt[index], qt[index + 1]
        if is_call(write, "write", "put_char") and is_call(flush, "flush") and write["obj"] == flush["obj"]:
            end = end_of(qt, index + 1)
            inside = qt[index + 2 : end]
            if any(is_signal(entry, "error_occurred") and entry["state"] == "ConnectedState" for entry in inside):
                result = {"k": "ret", "obj": write["obj"], "fn": write["fn"], "ret": -1}
                del write["ret"]
                qt[index + 1 : end + 1] = [*inside, result, {**flush, "ret": False}]
                touched += 2
    return touched


# What the getters of a socket say whose connection is over, and, if it was closed, so is all else.
ENDED = {"state": "UnconnectedState", "bytes_to_write": 0, "socket_descriptor": -1}
CLOSED = {**ENDED, "is_valid": False}


def end_at_once(qt: Entries) -> int:
    """disconnect_from_host() or close() right after a small write(): ours has nothing left to wait for."""
    touched = 0
    for index, entry in enumerate(qt):
        if not is_call(entry, "disconnect_from_host", "close") or index == 0 or not is_call(qt[index - 1], "write"):
            continue
        obj = entry["obj"]
        mine = [at for at in range(index + 1, len(qt)) if qt[at].get("obj") == obj]
        last = next((at for at in mine if is_signal(qt[at], "disconnected")), None)
        if last is None or not any(is_signal(qt[at], "bytes_written") for at in mine if at < last):
            continue
        between = [qt[at] for at in range(index + 1, last + 1)]
        signals = [other for other in between if is_signal(other) and other["obj"] == obj]
        others = [other for other in between if other not in signals]
        for other in others:
            after = CLOSED if entry["fn"] == "close" else ENDED
            if other.get("obj") == obj and is_query(other, *after):
                other["value"] = after[other["fn"]]
        touched += len(others)
        qt[index + 1 : last + 1] = [*signals, *others]
    return touched


def leave_nothing_behind(qt: Entries, ours: Entries) -> int:
    """Qt keeps the socket of a failed listen(), and of a bound socket that was refused; its getters show it."""
    touched = 0
    nothing = {"socket_descriptor": -1, "local_address": "addr:null", "local_port": 0}
    for obj in objects(qt):
        stale, bound = False, False
        for index, entry in enumerate(qt):
            if entry.get("obj") != obj:
                continue
            if is_call(entry, "listen"):
                stale = result_of(qt, index).get("ret") is False and not is_listening_before(qt, obj, index)
            elif is_signal(entry, "state_changed"):
                stale = bound and entry["args"] == ["UnconnectedState"] and entry["error"] != NO_ERROR
                bound = entry["args"][0] in ("BoundState", "HostLookupState", "ConnectingState") and (
                    bound or entry["args"] == ["BoundState"]
                )
            elif stale and is_query(entry, *nothing) and entry["value"] != nothing[entry["fn"]]:
                entry["value"] = nothing[entry["fn"]]
                touched += 1
    return touched


def is_listening_before(entries: Entries, obj: str, index: int) -> bool:
    calls = [at for at in range(index) if entries[at].get("obj") == obj and is_call(entries[at], "listen", "close")]
    return bool(calls) and is_call(entries[calls[-1]], "listen") and result_of(entries, calls[-1]).get("ret") is True


LOW_DELAY = "LowDelayOption"


def set_options(qt: Entries, ours: Entries) -> int:
    """What was set is in force, also before there is a socket, and on IPv6; what cannot be set is refused aloud."""
    touched = 0
    for entry in qt:
        if entry.get("text") == f"default {LOW_DELAY}":
            entry["value"] = 1
            touched += 1
    for obj in objects(qt):
        theirs = [entry for entry in of(qt, obj) if is_call(entry, "set_socket_option", "socket_option")]
        mine = [entry for entry in of(ours, obj) if is_call(entry, "set_socket_option", "socket_option")]
        in_force: dict[str, int] = {}
        forgotten: set[str] = set()  # by Qt, which had no socket to set it on
        for there, here in zip(theirs, mine, strict=False):
            name = there["args"][0]
            if is_call(there, "set_socket_option"):
                if str(here.get("ret")).startswith("refused"):
                    here["ret"] = None  # the getter after it shows that nothing has changed
                    touched += 1
                elif isinstance(there["args"][1], int):
                    in_force[name] = int(there["args"][1])
            elif there["ret"] is None and here.get("ret") == "refused":
                here["ret"] = None
                touched += 1
            elif name in in_force and (there["ret"] is None or name in forgotten):
                there["ret"] = in_force[name]
                forgotten.add(name)
                touched += 1
            elif name == LOW_DELAY and name not in in_force and there["ret"] == 0:
                there["ret"] = 1
                touched += 1
    return touched


def say_operation(qt: Entries) -> int:
    """A bind() in the wrong state is OPERATION, as a connect_to_host() is; Qt has other kinds for it."""
    touched = 0
    for index, entry in enumerate(qt):
        if is_call(entry, "bind") and result_of(qt, index).get("ret") is False:
            obj = entry["obj"]
            if state_at(qt, obj, index) in (None, "UnconnectedState") and not wrong_kind(qt, index):
                continue
            kind: str | None = None
            closed = False
            for other in qt[index:]:
                if other.get("obj") != obj:
                    continue
                if is_signal(other, "error_occurred") and kind is None:
                    kind = other["args"][0]
                    other["args"] = ["OperationError"]
                if is_call(other, "connect_to_host") or (closed and is_call(other, "bind")):
                    break
                closed = closed or is_call(other, "close")  # and what comes then has another socket of ours
                if kind is not None and other.get("error") == kind:
                    other["error"] = "OperationError"
                    touched += 1
                if kind is not None and is_query(other, "error") and other["value"] == kind:
                    other["value"] = "OperationError"
                    touched += 1
    return touched


def wrong_kind(entries: Entries, index: int) -> bool:
    inside = entries[index : end_of(entries, index)]
    kinds = [entry["args"][0] for entry in inside if is_signal(entry, "error_occurred")]
    return kinds in (["UnfinishedSocketOperationError"], [NO_ERROR])


def tell_errors(qt: Entries, ours: Entries) -> int:
    return say_operation(qt) + nothing_is_no_error(qt) + keep_the_error(qt) + tell_once(qt) + say_why(qt, ours)


def tell_once(qt: Entries) -> int:
    """Qt's TLS announces its end, and then TCP does the same."""
    again: set[int] = set()
    for obj in objects(qt):
        before: Entry = {}
        for entry in of(qt, obj):
            same = all(entry.get(key) == before.get(key) for key in ("k", "name", "args", "state", "error"))
            if same and is_signal(entry, "state_changed", "error_occurred"):
                again.add(id(entry))
            else:
                before = entry
    return remove(qt, lambda entry: id(entry) in again)


REFUSED_BY_PEER, LOST = "SslHandshakeFailedError", "RemoteHostClosedError"


def say_why(qt: Entries, ours: Entries) -> int:
    """Where an alert of the peer's has told ours why the handshake failed, Qt's only sees the connection end."""
    touched = 0
    for obj in objects(ours):
        told = [entry for entry in of(ours, obj) if is_signal(entry, "error_occurred") or is_instead(entry, SAID_WHY)]
        theirs = [entry for entry in of(qt, obj) if is_signal(entry, "error_occurred")]
        number = -1
        for entry in told:
            if is_signal(entry):
                number += 1
            elif 0 <= number < len(theirs) and theirs[number]["args"][-1] == LOST:
                entry["k"] = ACCOUNTED_FOR
                theirs[number]["args"][-1] = REFUSED_BY_PEER
                touched += 1 + rename_error(qt, theirs[number])
            elif 0 <= number < len(theirs) and theirs[number]["args"][-1] == REFUSED_BY_PEER:
                entry["k"] = ACCOUNTED_FOR
    remove(ours, lambda entry: entry["k"] == ACCOUNTED_FOR)
    return touched


SAID_WHY = "the peer has said why"


def rename_error(qt: Entries, first: Entry) -> int:
    """From this signal on until the object connects again."""
    touched = 0
    for entry in of(qt[place_of(qt, first) :], first["obj"]):
        if is_call(entry, *BEGINNING):
            break
        if entry.get("error") == LOST:
            entry["error"] = REFUSED_BY_PEER
            touched += 1
        if is_query(entry, "error") and entry["value"] == LOST:
            entry["value"] = REFUSED_BY_PEER
            touched += 1
    return touched


NOTHING_YET = "TemporaryError"


def nothing_is_no_error(qt: Entries) -> int:
    """Of a datagram that is not there ours says None; Qt tells that as an error."""
    touched = 0
    for obj in objects(qt):
        error = NO_ERROR
        for entry in of(qt, obj):
            if is_signal(entry, "error_occurred") and entry["args"] == [NOTHING_YET]:
                entry["k"] = "nothing"
                touched += 1
            elif is_query(entry, "error"):
                touched += entry["value"] == NOTHING_YET
                entry["value"] = error if entry["value"] == NOTHING_YET else entry["value"]
                error = entry["value"]
            elif is_signal(entry, "error_occurred"):
                error = entry["args"][0]
            if entry.get("error") == NOTHING_YET:
                entry["error"] = error
    remove(qt, lambda entry: entry["k"] == "nothing")
    return touched


def keep_the_error(qt: Entries) -> int:
    """A refused write() leaves error() alone; Qt's sets it to UnknownSocketError."""
    touched = 0
    for obj in objects(qt):
        error = NO_ERROR
        for entry in of(qt, obj):
            if is_signal(entry, "error_occurred"):
                error = entry["args"][0]
            elif is_call(entry, "connect_to_host", "close", "abort"):
                error = NO_ERROR
            elif is_query(entry, "error") and entry["value"] == NO_ERROR != error:
                entry["value"] = error  # nothing but a refused write resets it, recorded or not
                touched += 1
    return touched


RULES: tuple[Rule, ...] = (
    Rule(
        "not compared",
        "laws 2 and 3, row 21",
        "Left out: `is_open`, `open_mode`, `is_readable`, `is_writable`, `about_to_close`,"
        " `pending_connection_available`, and the wording of errors; the call in which Qt itself crashed, and what"
        " follows; and of TLS what is about ciphertext and alerts, or the context's to say, and that a server has"
        " accepted what cannot be taken before its handshake.",
        drop,
    ),
    Rule(
        "refused",
        "law 4, row 8",
        "A call that cannot be done raises; Qt prints a warning, and returns what says so if it returns anything.",
        refuse,
    ),
    Rule(
        "awaited",
        "law 2",
        "When `connect_to_host`, `disconnect_from_host` and `close` returned is not compared: ours are awaited; nor"
        " when `abort` did, in which Qt runs slots.  But an end of ours returns when it is over; it may go on in a task"
        " if bytes were queued and Qt's is not over either.",
        await_,
    ),
    Rule(
        "closed for good",
        "law 3",
        "`aclose` is for good, and who goes on has another TcpSocket with the same limit; in Qt `close` is not, and the"
        " object is used again.",
        replace_closed,
    ),
    Rule(
        "spelling",
        "row 20, HostAddress",
        "An IPv4-mapped IPv6 address is its IPv4 form; None is UnknownSocketError; `read_line(n)` is `readLine(n + 1)`;"
        " `skip` at the end is 0.  Of a datagram what Qt does not know is not compared, nor from which of its addresses"
        " a host sends to a group.",
        spell,
    ),
    Rule(
        "waits",
        "rows 2, 13 and 19",
        "A wait has no time-out of its own, so none becomes an error; and it returns if what it waits for holds."
        "  A `wait_for_connected` that runs out stands for a scope around `connect_to_host`, which drops the attempt.",
        wait,
    ),
    Rule(
        "meanwhile",
        "law 2",
        "While a `wait_for_...` waits, and before, everything else goes on; in Qt only inside of it.  So what was told"
        " in a wait is compared as if it had been told right before; it must not come after.",
        go_on,
    ),
    Rule(
        "in slots",
        "row 6",
        "A slot acts after the step that told it, and in Qt in the midst of it.  So a call that had no effect on the"
        " signals that follow in that step is compared as if it had come behind them.  Where a slot of `ready_read`"
        " acts, Qt emits no further one inside of it, and ours is told behind it.",
        act_later,
    ),
    Rule(
        "sent at once",
        "law 1, row 7",
        "`write` hands over what the kernel takes.  So `bytes_written` may come earlier, never later, and is the same"
        " in all; `flush` has nothing left to do; `bytes_to_write` is compared in its sum with what was written; and a"
        " loss that Qt's `flush` finds is found by our `write`.",
        send_at_once,
    ),
    Rule(
        "nothing stays behind",
        "law 6",
        "After a failed `listen`, and after a bound socket was refused, there is no system's socket left.",
        leave_nothing_behind,
    ),
    Rule(
        "options",
        "law 4, SocketOption",
        "An option that was set is in force, also before there is a socket and on IPv6; one that cannot be set raises;"
        " `LOW_DELAY` is on where nobody has set it.",
        set_options,
    ),
    Rule(
        "errors",
        "law 4, AbstractSocket.bind",
        "A refused `write` does not replace `error()`; `bind` in the wrong state is OPERATION, as `connect_to_host` is"
        " in Qt too.  That no datagram is there is None, and no error.  What is told once is told twice by Qt's TLS;"
        " and where ours is told by an alert why a handshake failed, Qt's only sees the connection end.",
        tell_errors,
    ),
)
