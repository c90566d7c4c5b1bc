"""Files in a folder or an S3 bucket: atomic writes, leases."""
