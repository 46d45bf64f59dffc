from __future__ import annotations
from collections.abc import Sequence
from trioqt import Event, StateChanged
from trioqt.core.events import Nudge
from trioqt.core.states import Told

def facts_told(events: Sequence[Event]) -> list[Told]:
    """Subscribed events as the table has them; nudges are left out, which merge as they like."""
    facts = [event for event in events if not isinstance(event, Nudge)]
    return [event.state if isinstance(event, StateChanged) else type(event) for event in facts]
