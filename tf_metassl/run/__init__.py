"""What a run is: from a configuration to checkpoints, a report, an export."""
