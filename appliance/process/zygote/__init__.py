"""A process that has imported an engine's libraries once and forks an engine per start.

Runs inside an engine environment, started by path; imports nothing of the appliance but this directory.
"""
