"""What a run will need, worked out beforehand: memory, disk, time and money."""
