"""Tables and pictures from results: leaderboards, comparisons, the gate, validation. None of them evaluates a board."""
