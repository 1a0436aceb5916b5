"""The specification of every operation in plain torch: slow, simple, and the judge of every kernel."""
