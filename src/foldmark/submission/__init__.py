"""The competition file: format, checks, record, ledger and upload."""
