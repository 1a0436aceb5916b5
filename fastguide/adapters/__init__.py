"""Drop-ins for other people's code: their names, signatures and semantics, one file a peer.

An adapter maps a peer's interface onto `fastguide.Steering` or `fastguide.ops` and has no mathematics of its own. Each is
imported by name (``from fastguide.adapters.fkd import FKD``), so that fastguide needs none of the peers. Where a peer is
wrong the default is right; ``compat=True`` reproduces the peer. ``docs/dropin.md`` tells what differs and why.
"""
