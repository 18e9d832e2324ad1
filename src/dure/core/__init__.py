"""What every room stands on: errors, structured concurrency, time, ids, JSON, settings."""
