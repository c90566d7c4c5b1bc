"""The working store of one render: pixels, states, journal."""
