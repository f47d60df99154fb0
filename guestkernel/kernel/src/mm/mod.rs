//! Programs' memory: address spaces and the memory side of reads and writes.
