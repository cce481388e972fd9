"""The commands of the specification, each as one function of a request."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from meshfw import Network
from meshfw_cni.firewall import Firewall
from meshfw_cni.problems import BAD_CONFIG, IO_FAILURE, NOT_AS_RECORDED, UNAVAILABLE, UNAVAILABLE_LIMITED, CniError
from meshfw_cni.request import Key, Policy, Request
from meshfw_cni.state import Attached, State, Store
from meshfw_cni.versions import converted

Tell = Callable[[str], None]
Answer = Mapping[str, Any] | None


def add(request: Request, tell: Tell) -> Answer:
    """Bring the rules of an attachment, and put right those of all others: the result of earlier plugins.

    An error leaves the attachment unrecorded.
    """
    store = Store(request.directory)
    with store.locked(request.timeout), Firewall(request.directory, tell=tell) as firewall:
        before = store.load()
        backend = firewall.choose(request.backend, before)
        after = before.having(_attached(request, backend))
        store.save(after)
        try:
            _settle(store, firewall, after)
        except CniError:
            # What was begun has been put back, but for what the error may say: the backend stays listed.
            store.save(State(backends=after.backends, attached=before.attached))
            raise
    return converted(request.result or {}, request.version)


def delete(request: Request, tell: Tell) -> Answer:
    """Take the rules of an attachment away, whether or not anything of it is known."""
    _forget(request, lambda state: frozenset({request.key}), tell)
    return None


def collect(request: Request, tell: Tell) -> Answer:
    """Take away the rules of every attachment of the network that isn't among the valid ones."""

    def stale(state: State) -> frozenset[Key]:
        keys = (entry.key for entry in state.attached if entry.key.network == request.network)
        return frozenset(key for key in keys if (key.container, key.interface) not in request.valid)

    _forget(request, stale, tell)
    return None


def check(request: Request, tell: Tell) -> Answer:
    """Find out whether the kernel holds every rule of an attachment: CniError where it doesn't."""
    store = Store(request.directory)
    with store.locked(request.timeout):
        state = store.load()
        found = state.find(request.key)
        if found is None:
            raise CniError(NOT_AS_RECORDED, f"no rules are known for {request.key}")
        wanted = _attached(request, found.backend)
        if wanted != found:
            raise CniError(NOT_AS_RECORDED, f"{request.key} was added with another configuration or result")
        with Firewall(request.directory, tell=tell) as firewall:
            missing = firewall.missing(state, found)
    if missing:
        shown = [*missing[:_SHOWN], *([f"and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else [])]
        raise CniError(
            NOT_AS_RECORDED, f"the rules of {request.key} don't stand as they should", f"to mend: {'; '.join(shown)}"
        )
    return None


_SHOWN: Final = 5


def status(request: Request, tell: Tell) -> Answer:
    """Find out whether an ADD would work: CniError where it wouldn't (50), or where pods may suffer by it now (51)."""
    store = Store(request.directory)
    state = State()
    try:
        state = store.load()
        _require_writable(request.directory)
        with Firewall(request.directory, tell=tell) as firewall:
            firewall.choose(request.backend, state)
    except CniError as error:
        limited = any(entry.key.network == request.network for entry in state.attached)
        raise CniError(UNAVAILABLE_LIMITED if limited else UNAVAILABLE, error.message, error.details) from error
    return None


def _require_writable(directory: str) -> None:
    """Refuse a directory in which no file could be made: CniError."""
    nearest = directory
    while not os.path.exists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK | os.X_OK):
        raise CniError(IO_FAILURE, f"{nearest} can't be written")


def _forget(request: Request, choose: Callable[[State], frozenset[Key]], tell: Tell) -> None:
    """Take attachments away, and put right what else stands, be it nothing but what a killed call left."""
    store = Store(request.directory)
    if not os.path.exists(store.path):
        return  # an ADD that got any further than this has made it
    with store.locked(request.timeout):
        before = store.load()
        after = before.without(choose(before))
        if after != before:
            store.save(after)
        with Firewall(request.directory, tell=tell) as firewall:
            _settle(store, firewall, after)


def _settle(store: Store, firewall: Firewall, state: State) -> None:
    firewall.settle(state)
    settled = state.settled()
    if settled != state:
        store.save(settled)


def _attached(request: Request, backend: str) -> Attached:
    """What is recorded of a request: of its result the container's addresses, and the host's interface to it."""
    result = request.result or {}
    interfaces = result.get("interfaces", [])
    addresses = tuple(_canonical(entry["address"]) for entry in result.get("ips", []) if _of_pod(entry, interfaces))
    if not addresses and request.policy is Policy.ISOLATE:  # rules are for addresses: it would be open to everybody
        raise CniError(
            BAD_CONFIG,
            "prevResult.ips: no address of the container, so it can't be isolated",
            'expected a plugin before this one that gives it one, or "policy": "accept"',
        )
    return Attached(
        key=request.key,
        backend=backend,
        addresses=addresses,
        bridge=next((_name(entry) for entry in interfaces if not entry.get("sandbox") and _name(entry)), ""),
        masquerade=request.masquerade,
        policy=request.policy,
        pod_networks=request.pod_networks,
    )


def _of_pod(entry: Mapping[str, Any], interfaces: list[Mapping[str, Any]]) -> bool:
    """Whether an address is the container's: it may name an interface, and one of the host's has no sandbox."""
    index = entry.get("interface")
    if not isinstance(index, int) or not 0 <= index < len(interfaces):
        return True
    return bool(interfaces[index].get("sandbox"))


def _name(interface: Mapping[str, Any]) -> str:
    """Its name; none where iptables would take it for the beginning of many names."""
    name = interface.get("name")
    return name if isinstance(name, str) and not name.endswith("+") else ""


def _canonical(text: str) -> str:
    """An address with its prefix length, in one writing; the host's part stays."""
    host, _, _ = text.partition("/")
    address = str(Network.parse(host)).partition("/")[0]
    return f"{address}/{Network.parse(text).prefix}"
