//! A log in local files: one interleaved stream of all partitions, group commit, recovery.
