//! Threads: what each has cached, and what it did.

/// A thread that has allocated, or the cache of one that has ended and waits for the next.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Thread {
    /// The kernel's number. `None`: it has ended.
    pub id: Option<u32>,
    /// Its name, as the kernel knows it.
    pub name: Option<String>,
    /// Blocks allocated by whoever had this cache.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Bytes allocated, at block size.
    pub allocated_bytes: u64,
    /// Bytes freed, at block size.
    pub freed_bytes: u64,
    /// Free blocks in the cache.
    pub cached_blocks: u64,
    /// Their bytes.
    pub cached_bytes: u64,
}

/// All of them, those with the most in their caches first.
#[must_use]
pub fn threads() -> Vec<Thread> {
    Vec::new()
}
