"""Train one member: one network, one fold, one seed."""
