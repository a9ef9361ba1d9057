"""What envsynth claims, as commands: each line prints value, target, PASS or FAIL."""
