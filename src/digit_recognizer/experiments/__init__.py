"""Search, compare and measure recipes."""
