//! All randomness of the process from the seed: hash maps, random numbers of every crate, and the
//! order in which tokio polls and wakes.
//!
//! All of them ask the C library's `getrandom` in the end. A definition in the executable goes
//! before the library's, here as with any interposed function; the standard library leaves that
//! door open on purpose. Threads that are not the simulation's get the system's randomness.
#![expect(unsafe_code, reason = "a C function can only be defined and forwarded to unsafely")]

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

thread_local! {
    /// The state of the generator; none on threads that are not the simulation's.
    static STREAM: Cell<Option<u64>> = const { Cell::new(None) };
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// Seeds this thread, before anything on it has asked for randomness.
pub(crate) fn seed(seed: u64) {
    STREAM.set(Some(seed));
    let asked = || ASKED.get();
    let before = asked();
    RandomState::new().hash_one(0);
    assert!(asked() > before, "hash maps get their randomness elsewhere");
    let before = asked();
    let _: u64 = rand::random();
    assert!(asked() > before, "random numbers come from elsewhere");
}

/// `SplitMix64`: every state is followed by another, and every one is as good as the next.
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

/// The C library's function of this name, for everybody in this process.
///
/// # Safety
/// As the original: `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    let Some(mut state) = STREAM.get() else {
        // SAFETY: the arguments are passed on as they came.
        let filled = unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(filled).unwrap_or(-1);
    };
    for at in 0..length {
        let (following, byte) = next(state);
        state = following;
        // SAFETY: `at` is below `length`, for which the caller vouches.
        unsafe { buffer.add(at).write((byte & 0xff) as u8) };
    }
    STREAM.set(Some(state));
    ASKED.set(ASKED.get() + 1);
    isize::try_from(length).unwrap_or(isize::MAX)
}
