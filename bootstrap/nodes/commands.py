"""The words of the protocol that each step is told with."""

from __future__ import annotations

from typing import assert_never

from bootstrap.model.node import Address
from bootstrap.model.steps import (
    AddSlots,
    Announce,
    CancelMigration,
    CloseSlot,
    Failover,
    Forget,
    Leave,
    ManualFailover,
    Meet,
    MoveKeys,
    MoveSlots,
    Provision,
    Reattach,
    Replicate,
    SetConfig,
    SetEpoch,
    SetSlotOwner,
    SetSlotState,
    SetTimeout,
    TakeSlot,
    Wipe,
    Write,
)

Command = tuple[str | int, ...]


def commands_for(write: Write) -> tuple[Command, ...]:
    """The words that a step is told with, in order."""
    match write:
        case SetTimeout():
            return (("CONFIG", "SET", "cluster-node-timeout", write.timeout_ms),)
        case SetConfig():
            return (("CONFIG", "SET", write.name, write.value),)
        case SetEpoch():
            return (("CLUSTER", "SET-CONFIG-EPOCH", write.epoch),)
        case Meet():
            return (_meet(write.address, write.bus_port),)
        case AddSlots():
            return (("CLUSTER", "ADDSLOTS", *write.slots),)
        case Replicate() | Reattach():
            return (("CLUSTER", "REPLICATE", write.master),)
        case SetSlotState():
            side = "IMPORTING" if write.importing else "MIGRATING"
            return (("CLUSTER", "SETSLOT", write.slot, side, write.other),)
        case SetSlotOwner():
            return tuple(("CLUSTER", "SETSLOT", slot, "NODE", write.owner) for slot in write.slots)
        case TakeSlot():
            return (("CLUSTER", "SETSLOT", write.slot, "NODE", write.node),)
        case CloseSlot():
            return (("CLUSTER", "SETSLOT", write.slot, "STABLE"),)
        case Wipe():
            reset = ("CLUSTER", "RESET", "HARD")
            flush = ("FLUSHALL", "ASYNC")
            save = ("SAVE",)
            return (("MULTI",), flush, reset, ("EXEC",), save) if write.flush else (reset, flush, save)
        case MoveKeys() | MoveSlots() | Provision() | Leave() | CancelMigration():
            raise TypeError(f"{type(write).__name__} is a conversation, not a command")
        case ManualFailover():
            return (("CLUSTER", "FAILOVER"),)
        case Failover():
            return (("CLUSTER", "FAILOVER", "TAKEOVER" if write.takeover else "FORCE"),)
        case Forget():
            return (("CLUSTER", "FORGET", write.lost),)
        case Announce():
            return tuple(_meet(address, bus_port) for address, bus_port in write.others)
        case _:
            assert_never(write)


def _meet(address: Address, bus_port: int) -> Command:
    return ("CLUSTER", "MEET", address.host, address.port, *((bus_port,) if bus_port else ()))
