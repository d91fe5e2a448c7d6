"""What kills, full disks and bad input do to every command: counted by ``make test-faults``."""
