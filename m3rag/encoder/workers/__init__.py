"""Processes that compute for `DevicePool`: `process` runs in one, `handle` is the parent's end of it, `crew` is all."""
