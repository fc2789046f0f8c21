"""Score a blend, estimate its public score, and draw plots."""
