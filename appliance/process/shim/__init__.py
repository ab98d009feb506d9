"""The process between the appliance and one engine. Standard library alone, and little of it: one runs per engine."""
