"""Power cuts under the real store: recorded system calls, and a disk that keeps what it must and loses what it may."""
