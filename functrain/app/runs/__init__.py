"""What the commands do to runs: train, evaluate, show, export, check; and a run's directory."""
