"""The commands, one file a command family; the only place where all packages meet."""
