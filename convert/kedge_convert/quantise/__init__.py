"""From float weights to integers: candidates of every integer target, and the best of them."""
