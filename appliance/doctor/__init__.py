"""What is wrong on this machine, why, and what to do about it."""
