"""What training minimises and how parameters move: losses, schedules, densification."""
