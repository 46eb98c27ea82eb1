"""Power cuts under the real store: recorded system calls, and a disk that may lose what was not synced."""
