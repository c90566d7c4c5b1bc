"""Progress of a render: log, metrics, status, report."""
