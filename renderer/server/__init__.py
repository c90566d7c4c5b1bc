"""The images API over HTTP: jobs in a folder, drawn on warm workers, their answers and events."""
