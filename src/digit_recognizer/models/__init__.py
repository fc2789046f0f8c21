"""Networks, fixed preprocessing of their inputs, and random augmentation."""
