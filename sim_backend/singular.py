"""What every solver says where a circuit rounds to one without a unique solution."""

SINGULAR = (
    "the circuit has no unique solution in floating point: some node hangs on conductances too small "
    "beside its neighbours'; narrow the conductance range"
)
