"""What each command does, a file a command family; the only place where all packages meet."""
