"""What commands are told: options that several share, the spec's fields, values for the shell."""
